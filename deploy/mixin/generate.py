"""Writes the rules and dashboards that the mixin makes with its default parameters.

`python deploy/mixin/generate.py [ROOT]`, from `make mixin`. The tests compare the committed files
with what this writes, and take rules with other parameters from `rules`.
"""

import json
import pathlib
import sys

import _jsonnet

MIXIN = pathlib.Path(__file__).resolve().parent
ROOT = MIXIN.parents[1]
HEAD = "# Generated from deploy/mixin by `make mixin`; edit that. What each alert means: docs/alerts.md.\n"


def evaluate(expression, config=None):
    """The value of a jsonnet expression over `mixin`, with `config` in place of the defaults."""
    source = "local mixin = (import 'mixin.libsonnet') + { _config+:: %s };\n%s"
    text = source % (json.dumps(config or {}), expression)
    return json.loads(_jsonnet.evaluate_snippet(str(MIXIN / "snippet"), text))


def rules(config=None):
    """The rule file's text: recording rules, then alerts."""
    groups = "{ groups: mixin.prometheusRules.groups + mixin.prometheusAlerts.groups }"
    yaml = "std.manifestYamlDoc(%s, indent_array_in_object=true, quote_keys=false)"
    return HEAD + evaluate(yaml % groups, config) + "\n"


def files():
    """Path below the root to content, of every generated file."""
    written = {"deploy/prometheus/gsdk2mqtt.rules.yml": rules()}
    for name, board in evaluate("mixin.grafanaDashboards").items():
        text = json.dumps(board, indent=2, sort_keys=True, ensure_ascii=False)
        written[f"dashboards/{name}"] = text + "\n"
    return written


if __name__ == "__main__":
    root = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    for path, content in files().items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content, encoding="utf-8")
