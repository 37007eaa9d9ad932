"""What no schema sees in the built Kubernetes base: that names, labels, ports and secrets that refer to each other fit.

Usage: kubernetes.py BUILT.yaml. Prints what doesn't fit and ends with 1.
"""

import re
import sys
from pathlib import Path

import yaml

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
# Which keys of rollcall.toml each role reads its secrets from.
ROLE_SECRETS = {
    "ingress": {"broker-url", "github-webhook-secret"},
    "worker": {"broker-url", "ledger-url", "drata-api-key"},
    "migrate": {"ledger-url"},
}

objects = [document for document in yaml.safe_load_all(Path(sys.argv[1]).read_text()) if document]
problems: list[str] = []


def hold(fits: bool, problem: str) -> None:
    if not fits:
        problems.append(problem)


def of(kind: str) -> list[dict]:
    found = [thing for thing in objects if thing["kind"] == kind]
    hold(bool(found), f"there is no {kind}")
    return found


def name(thing: dict) -> str:
    return f"{thing['kind']} {thing['metadata']['name']}"


def matches(selector: dict, labels: dict) -> bool:
    return selector.items() <= labels.items()


def pods() -> list[tuple[str, dict, dict]]:
    return [
        (name(thing), thing["spec"]["template"]["metadata"]["labels"], thing["spec"]["template"]["spec"])
        for thing in of("Deployment") + of("Job")
    ]


def ports(pod: dict) -> set[str]:
    return {port["name"] for container in pod["containers"] for port in container.get("ports", [])}


def check_pods() -> None:
    maps = {thing["metadata"]["name"] for thing in of("ConfigMap")}
    for who, labels, pod in pods():
        hold(pod["securityContext"].get("runAsNonRoot") is True, f"{who} may run as root")
        hold(pod.get("automountServiceAccountToken") is False, f"{who} gets a token of the cluster")
        volumes = {volume["name"] for volume in pod["volumes"]}
        for volume in pod["volumes"]:
            wanted = volume.get("configMap", {}).get("name")
            hold(wanted is None or wanted in maps, f"{who} mounts the ConfigMap {wanted}, which there isn't")
        for container in pod["containers"]:
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            hold(mounted == volumes, f"{who}: volumes {volumes} aren't the mounted {mounted}")
            hold(container["securityContext"].get("readOnlyRootFilesystem") is True, f"{who} may write to its image")
            hold("memory" in container["resources"]["limits"], f"{who} has no limit of memory")
            for probe in ("livenessProbe", "readinessProbe"):
                if probe in container:
                    port = container[probe]["httpGet"]["port"]
                    hold(port in ports(pod), f"{who}: its {probe} asks port {port}, which it hasn't")


def check_deployments() -> None:
    for thing in of("Deployment"):
        who, spec = name(thing), thing["spec"]
        labels, pod = spec["template"]["metadata"]["labels"], spec["template"]["spec"]
        role = labels["app.kubernetes.io/component"]
        container = pod["containers"][0]
        hold(spec["replicas"] >= 2, f"{who} has a single replica")
        hold(matches(spec["selector"]["matchLabels"], labels), f"{who} doesn't select its own pods")
        hold(container["args"] == ["serve", "--role", role], f"{who}: the arguments aren't its role's")
        hold({"livenessProbe", "readinessProbe"} <= container.keys(), f"{who} lacks a probe")
        hold(pod["terminationGracePeriodSeconds"] > 70, f"{who} is killed before it can have finished")
        for constraint in pod["topologySpreadConstraints"]:
            hold(matches(constraint["labelSelector"]["matchLabels"], labels), f"{who} spreads other pods than its own")
        secret = [volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume]
        hold(secret == [f"rollcall-{role}"], f"{who} mounts the secrets {secret}")


def check_selectors() -> None:
    everybody = [(labels, ports(pod)) for _, labels, pod in pods()]
    for thing in of("Service") + of("PodDisruptionBudget") + of("NetworkPolicy"):
        spec = thing["spec"]
        selector = spec.get("podSelector", spec.get("selector"))
        wanted = selector if thing["kind"] == "Service" else selector.get("matchLabels", {})
        chosen = [offered for labels, offered in everybody if matches(wanted, labels)]
        hold(bool(chosen), f"{name(thing)} selects no pods")
        offered = set().union(*chosen)
        if thing["kind"] == "Service":
            used = {port["targetPort"] for port in spec["ports"]}
        else:
            used = {port["port"] for rule in spec.get("ingress", []) for port in rule.get("ports", [])}
        named = {port for port in used if isinstance(port, str)}
        hold(named <= offered, f"{name(thing)} names ports {named - offered} that its pods haven't")


def check_configuration() -> None:
    text = (FOLDER / "rollcall.toml").read_text()
    for kind, port in (("webhooks", 8080), ("admin", 9090)):
        listed = {
            declared["containerPort"]
            for _, _, pod in pods()
            for container in pod["containers"]
            for declared in container.get("ports", [])
            if declared["name"] == kind
        }
        hold(listed == {port}, f"the port {kind} is {listed}")
        hold(f'listen = "0.0.0.0:{port}"' in text, f"rollcall.toml doesn't listen on {port}")
    named = set(re.findall(r'"/run/secrets/rollcall/([^"]+)"', text))
    known = set().union(*ROLE_SECRETS.values())
    hold(named == known, f"rollcall.toml names the secrets {named}, the roles have {known}")
    operations = (FOLDER.parent / "docs" / "operations.md").read_text()
    for thing in of("Job"):
        role = thing["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"]
        secret = [volume["secret"]["secretName"] for volume in thing["spec"]["template"]["spec"]["volumes"] if "secret" in volume]
        hold(secret == [f"rollcall-{role}"], f"{name(thing)} mounts the secrets {secret}")
    for role, secrets in ROLE_SECRETS.items():
        command = re.search(rf"create secret generic rollcall-{role}((?:.*\\\n)*.*)", operations)
        told = set(re.findall(r"--from-file=(?:[^\s=]*/)?([\w-]+)", command.group(1))) if command else set()
        hold(told == secrets, f"operations.md makes the Secret rollcall-{role} of {told} and not of {secrets}")


def check_nothing_secret() -> None:
    hold(not any(thing["kind"] == "Secret" for thing in objects), "a Secret is kept in the repository")


for check in (check_pods, check_deployments, check_selectors, check_configuration, check_nothing_secret):
    check()
for problem in problems:
    print(f"deploy/kubernetes: {problem}")
sys.exit(1 if problems else 0)
