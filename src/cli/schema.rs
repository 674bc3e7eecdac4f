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
}

pub(crate) fn run(args: &SchemaArgs) -> anyhow::Result<()> {
    let text = if args.config {
        format!("{:#}\n", config::json_schema())
    } else if args.openapi {
        schema::open_api()
    } else {
        schema::async_api()
    };
    super::print(&text)?;
    Ok(())
}
