"""As much of grpcurl as `gsdk2mqtt simulate` prints, for machines without it."""

import argparse
import pathlib
import sys
import tempfile

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_tools import protoc


def main():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for option in ("-cacert", "-cert", "-key", "-import-path", "-proto", "-d", "-H"):
        parser.add_argument(option)
    parser.add_argument("address")
    parser.add_argument("method")
    args = vars(parser.parse_args())

    with tempfile.NamedTemporaryFile() as out:
        includes = ["-I" + args["import_path"], "--include_imports"]
        arguments = includes + ["--descriptor_set_out=" + out.name, args["proto"]]
        assert protoc.main(["protoc"] + arguments) == 0
        files = descriptor_pb2.FileDescriptorSet.FromString(pathlib.Path(out.name).read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    service, name = args["method"].split("/")
    method = pool.FindServiceByName(service).methods_by_name[name]
    request = message_factory.GetMessageClass(method.input_type)()
    response = message_factory.GetMessageClass(method.output_type)

    def read(option):
        return pathlib.Path(args[option]).read_bytes() if args[option] else None

    credentials = grpc.ssl_channel_credentials(read("cacert"), read("key"), read("cert"))
    metadata = [tuple(args["H"].split(": ", 1))] if args["H"] else []
    with grpc.secure_channel(args["address"], credentials) as channel:
        call = channel.unary_unary(
            "/" + args["method"], type(request).SerializeToString, response.FromString
        )
        answer = call(json_format.Parse(args["d"] or "{}", request), metadata=metadata, timeout=10)
    print(json_format.MessageToJson(answer))


if __name__ == "__main__":
    sys.exit(main())
