//! The code in `proto/generated/` is what `proto/` compiles to. It is kept in the repository, so
//! that the compiler of `proto/` is no part of each build. `make proto` writes it.

#![allow(clippy::unwrap_used, reason = "clippy sees no test in the helpers of one")]

use std::collections::BTreeMap;
use std::path::Path;

/// Messages whose texts are read as bytes, which look the same on the wire: a text that is not
/// UTF-8 would make the whole answer unreadable.
const READ_FROM_GATEWAYS: [&str; 4] =
    ["DeviceInfo", "FactoryInfo", "PendingDeviceInfo", "SearchDeviceInfo"];
/// Their numbers in `google.protobuf.FieldDescriptorProto.Type`.
const TYPE_STRING: i32 = 9;
const TYPE_BYTES: i32 = 12;

const FILES: [&str; 7] = [
    "gsdk/connect.proto",
    "gsdk/connect_master.proto",
    "gsdk/device.proto",
    "gsdk/err.proto",
    "gsdk/event.proto",
    "gsdk/gateway.proto",
    "gsdk/login.proto",
];

fn generate(folder: &Path) {
    let mut descriptors = protox::compile(FILES, ["proto"]).unwrap();
    let files = descriptors.file.iter_mut().flat_map(|file| &mut file.message_type);
    for message in files.filter(|message| READ_FROM_GATEWAYS.contains(&message.name())) {
        let texts = message.field.iter_mut().filter(|field| field.r#type == Some(TYPE_STRING));
        texts.for_each(|field| field.r#type = Some(TYPE_BYTES));
    }
    // The method Connect would collide with the generated `connect` of the transport.
    let compiler = tonic_prost_build::configure().build_transport(false).out_dir(folder);
    compiler.compile_fds(descriptors).unwrap();
}

fn files(folder: &Path) -> BTreeMap<String, String> {
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let name = |file: &Path| file.file_name().unwrap().to_str().unwrap().to_owned();
    files.map(|file| (name(&file), std::fs::read_to_string(&file).unwrap())).collect()
}

#[test]
fn the_generated_code_is_that_of_the_proto_files() {
    let kept = Path::new("proto/generated");
    if std::env::var_os("WRITE_PROTO").is_some() {
        generate(kept);
    }
    let folder = tempfile::tempdir().unwrap();
    generate(folder.path());
    // Compared by name first: a difference in full would be thousands of lines.
    let (kept, expected) = (files(kept), files(folder.path()));
    assert!(kept.keys().eq(expected.keys()), "run make proto");
    for (name, text) in expected {
        assert!(kept[&name] == text, "{name} is not what proto/ compiles to: run make proto");
    }
}
