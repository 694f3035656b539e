"""What takes the place of the agent, its libraries and systemd where the agent is installed."""

import hashlib
import zipfile
from pathlib import Path

AGENT = """
import http.server, json, sys, tomllib

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response({ready} if self.path == "/readyz" else 503)
        self.end_headers()
    def log_message(self, *_):
        pass

def main():
    import greeting
    if sys.argv[1] == "--version":
        print("{version}")
        return
    if sys.argv[1] in ("completion", "manual"):
        print("{version}", sys.argv[-1])
        return
    config = tomllib.load(open(sys.argv[-1], "rb"))
    if "{version}" in config.get("refused_by", []):
        print("config.toml: this key is refused by {version}", file=sys.stderr)
        sys.exit(78)
    if sys.argv[1] == "status":
        if "out" not in config:
            sys.exit("error: storage does not answer")
        vms = [dict(vm=vm, recorded=vm in config["out"]) for vm in ["other", *config["out"]]]
        print(json.dumps(dict(ledger=dict(problem=""), vms=vms)))
        return
    probe = config.get("probe", dict()).get("listen", "")
    addresses = dict(run=config["server"]["listen"], probe=probe)
    print("server.listen", "file", addresses["run"])
    print("probe.listen", "environment LB_DRAIN_PROBE_LISTEN", probe)
    if sys.argv[1] in addresses:
        host, port = addresses[sys.argv[1]].split(":")
        http.server.HTTPServer((host, int(port)), Answer).serve_forever()

if __name__ == "__main__":
    main()
"""
SYSTEMCTL = """#!{python}
import contextlib, os, pathlib, signal, subprocess, sys

root = pathlib.Path({root!r})
words = [word for word in sys.argv[1:] if not word.startswith("--")]
unit = words[-1]
running, enabled, said = root / f"{{unit}}.pid", root / f"{{unit}}.enabled", root / "systemctl.log"
with said.open("a") as log:
    log.write(" ".join(sys.argv[1:]) + "\\n")
if words[0] in ("stop", "disable", "restart") and running.exists():
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(running.read_text()), signal.SIGKILL)
    running.unlink()
if words[0] in ("start", "restart"):
    program, config = root / "opt/lb-drain/bin/lb-drain", root / "etc/lb-drain/config.toml"
    drop_in = root / f"etc/systemd/system/{{unit}}.service.d/version-before.conf"
    if drop_in.exists():
        program = root / drop_in.read_text().rpartition("ExecStart=/")[2].split()[0]
    command = [program, "probe" if unit.endswith("probe") else "run", "--config", config]
    null = subprocess.DEVNULL
    agent = subprocess.Popen(command, stdin=null, stdout=null, stderr=null, start_new_session=True)
    running.write_text(str(agent.pid))
elif words[0] == "disable":
    enabled.unlink(missing_ok=True)
elif words[0] == "enable":
    enabled.touch()
elif words[0] == "is-enabled":
    sys.exit(not enabled.exists())
elif words[0] == "is-active":
    sys.exit(0 if running.exists() else 3)
elif words[0] == "is-failed":
    sys.exit(1)
"""


def make_wheel(directory: Path, name: str, version: str, code: str, script: str = "") -> Path:
    """Make a wheel of one module. The same arguments make the same file at any time."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}-{version}-py3-none-any.whl"
    module = "controller" if script else name
    info = f"{name}-{version}.dist-info"
    files = {
        f"{module}.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{script}\n" if script else "",
    }
    files[f"{info}/RECORD"] = "".join(f"{each},,\n" for each in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(path, "w") as archive:
        for each, text in files.items():
            archive.writestr(zipfile.ZipInfo(each), text)
    return path


def digest(path: Path) -> str:
    """Return the sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
