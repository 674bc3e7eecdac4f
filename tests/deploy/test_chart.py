"""The Helm chart, rendered by Helm itself (its library, from PyPI) and validated against Kubernetes' schemas."""

import json
import pathlib
import tempfile
import unittest

import kubernetes_validate
import yaml

try:
    import helm_python as helm
except ImportError:
    raise SystemExit("SKIPPED: the Helm chart (no Helm library for this machine)") from None

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = tempfile.TemporaryDirectory()
# As a release has it: rules and dashboards are files, not links.
CHART = helm.package(ROOT / "deploy/helm/gsdk2mqtt", destination=FOLDER.name)
CONFIG = '[mqtt]\nurl = "mqtt://broker"\n\n[gateways.lobby]\naddress = "192.168.0.2:4000"\nca_file = "/a \\"b\\"/ca.crt"\n'
EVERYTHING = {
    "secretName": "", "image": {"repository": "registry.lan/bridge", "tag": "x"},
    "imagePullSecrets": [{"name": "registry"}], "metricsListen": "[::]:9925",
    "state": {"size": "10Gi", "storageClassName": "fast"}, "resources": {}, "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "edge", "operator": "Exists"}], "affinity": {"nodeAffinity": {}},
    "networkPolicy": {"prometheusNamespace": "observability", "egress": []},
    "monitoring": {"serviceMonitor": True, "prometheusRule": True, "dashboards": True, "labels": {"release": "kps"}},
}


def rendered(values=None, name="gsdk2mqtt"):
    """Every object by its kind and name."""
    with helm.Chart.load(CHART) as chart:
        files = chart.render({"config": CONFIG} | (values or {}), name=name, namespace="site")
    found = {}
    for file, text in files.items():
        for thing in yaml.safe_load_all(text) if file.endswith(".yaml") else []:
            if thing:
                found[thing["kind"], thing["metadata"]["name"]] = thing
                if not thing["apiVersion"].startswith("monitoring."):
                    kubernetes_validate.validate(thing, "1.32", strict=True)
    return found


class Chart(unittest.TestCase):
    def test_it_passes_helm_lint(self):
        report = helm.lint(CHART, {"config": CONFIG}, strict=True)
        worse = [message for message in report["messages"] if message["severity"] > 1]
        self.assertFalse(report["errors"] or worse, report)

    def test_the_defaults_need_a_configuration_only(self):
        things = rendered()
        self.assertEqual({kind for kind, _ in things}, {
            "ConfigMap", "NetworkPolicy", "PodDisruptionBudget", "Service", "StatefulSet"})
        self.assertEqual(things["ConfigMap", "gsdk2mqtt"]["data"], {"config.toml": CONFIG})
        with self.assertRaisesRegex(helm.HelmError, "config"):
            rendered({"config": ""})
        with helm.Chart.load(CHART) as chart:
            version = chart.version
            self.assertEqual(chart.metadata["appVersion"], version)
        pod = things["StatefulSet", "gsdk2mqtt"]["spec"]["template"]["spec"]
        self.assertEqual(pod["containers"][0]["image"], f"ghcr.io/gsdk2mqtt/gsdk2mqtt:{version}")

    def test_one_bridge_under_restricted_pod_security(self):
        for values in ({}, EVERYTHING):
            spec = rendered(values)["StatefulSet", "gsdk2mqtt"]["spec"]
            self.assertEqual((spec["replicas"], spec["podManagementPolicy"]), (1, "Parallel"))
            pod = spec["template"]["spec"]
            self.assertTrue(pod["securityContext"]["runAsNonRoot"])
            self.assertEqual(pod["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
            (container,) = pod["containers"]
            self.assertEqual(container["securityContext"], {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}})
            self.assertEqual(container["ports"], [{"name": "metrics", "containerPort": 9925}])
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                self.assertEqual(container[probe]["httpGet"]["port"], "metrics")

    def test_everything_that_can_be_set_is_set(self):
        things = rendered(EVERYTHING)
        spec = things["StatefulSet", "gsdk2mqtt"]["spec"]
        pod, claim = spec["template"]["spec"], spec["volumeClaimTemplates"][0]["spec"]
        self.assertEqual(claim["resources"]["requests"], {"storage": "10Gi"})
        self.assertEqual(claim["storageClassName"], "fast")
        for key in ("imagePullSecrets", "nodeSelector", "tolerations", "affinity"):
            self.assertEqual(pod[key], EVERYTHING[key])
        self.assertEqual([volume["name"] for volume in pod["volumes"]], ["config"])
        self.assertEqual(pod["containers"][0]["image"], "registry.lan/bridge:x")
        self.assertEqual(pod["containers"][0]["env"][0]["value"], "[::]:9925")
        self.assertNotIn(("NetworkPolicy", "gsdk2mqtt"), rendered({"networkPolicy": {"enabled": False}}))

    def test_rules_and_dashboards_are_the_mixins(self):
        things = rendered(EVERYTHING)
        rules = things["PrometheusRule", "gsdk2mqtt"]
        self.assertEqual(rules["spec"], yaml.safe_load((ROOT / "deploy/prometheus/gsdk2mqtt.rules.yml").read_text()))
        self.assertEqual(rules["metadata"]["labels"]["release"], "kps")
        boards = things["ConfigMap", "gsdk2mqtt-dashboards"]
        self.assertEqual(boards["metadata"]["labels"]["grafana_dashboard"], "1")
        self.assertEqual({name: json.loads(text) for name, text in boards["data"].items()}, {
            file.name: json.loads(file.read_text()) for file in (ROOT / "dashboards").glob("*.json")})
        monitor = things["ServiceMonitor", "gsdk2mqtt"]["spec"]
        labels = things["Service", "gsdk2mqtt"]["metadata"]["labels"]
        self.assertEqual(labels[monitor["jobLabel"]], "gsdk2mqtt", "the job that the rules select")
        self.assertLessEqual(monitor["selector"]["matchLabels"].items(), labels.items())

    def test_two_releases_share_nothing(self):
        self.assertFalse(set(rendered(EVERYTHING)) & set(rendered(EVERYTHING, "annex")))

    def test_mistakes_in_values_are_refused(self):
        for wrong in ({"replicas": 2}, {"image": {"pullPolicy": "Sometimes"}}, {"state": {"size": "4"}},
                      {"monitoring": {"serviceMonitor": "yes"}}, {"metricsListen": "0.0.0.0:80"}):
            with self.assertRaises(helm.HelmError, msg=wrong):
                rendered(wrong)


if __name__ == "__main__":
    unittest.main()
