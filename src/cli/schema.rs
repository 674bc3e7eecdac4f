//! `gsdk2mqtt schema`: the AsyncAPI document, the API's OpenAPI document, or the configuration's
//! JSON Schema.

use crate::{config, schema};

/// The topics with their payloads as AsyncAPI 3, on stdout.
#[derive(Debug, clap::Args)]
pub(crate) struct SchemaArgs {
    /// The configuration's JSON Schema instead, for editors
    #[arg(long)]
    config: bool,
    /// The OpenAPI document of the HTTP API instead
    #[arg(long, conflicts_with = "config")]
    openapi: bool,
    /// Prefix of the topics, if it is not the default
    #[arg(long, value_name = "TOPIC", default_value = "gsdk", value_parser = base_topic)]
    base_topic: String,
    /// The bridge's name in topics, if it is not the default
    #[arg(long, value_name = "NAME", default_value = "bridge", value_parser = bridge_name)]
    bridge_name: String,
}

fn base_topic(text: &str) -> Result<String, String> {
    config::read_text(config::topic, text)
}

fn bridge_name(text: &str) -> Result<String, String> {
    config::read_text(config::bridge_name, text)
}

pub(crate) fn run(args: &SchemaArgs) -> anyhow::Result<()> {
    let text = if args.config {
        format!("{:#}\n", config::json_schema())
    } else if args.openapi {
        schema::open_api()
    } else {
        schema::async_api(&args.base_topic, &args.bridge_name)
    };
    super::print(&text)?;
    Ok(())
}
