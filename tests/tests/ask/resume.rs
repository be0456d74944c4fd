//! Another container: asked for, approved, the bottle ends, and is resumed in it, with its work as it was left. A Dockerfile is the
//! agent's own text, so what it does while it is carried out is looked at from inside and from outside.

use super::scene::{ASKED, NEIGHBOUR, approve, ask_hosts, call, fresh, reaches, says, status, wait_for_pending};
use bottle_tests::harness::{Bottle, Output, Site, World, finish, signal, wait_until};
use rustix::process::Signal;
use serde_json::json;
use std::process::{Command, Stdio};

/// A running bottle whose agent may ask, with the site's directory as its workspace.
fn working<'a>(site: &'a Site, world: &World<'_>) -> Bottle<'a> {
    site.bottle("dev", &format!("{}supervise: true\n", world.bottle_yaml(&site.clients())));
    std::fs::write(site.work().join("given.txt"), "given\n").unwrap();
    let name = fresh("resume");
    site.agent(&name, "dev");
    site.run(&name).detached(&["sleep", "900"])
}

/// The agent asks for a Dockerfile of these lines, and a person approves it.
#[track_caller]
fn granted(site: &Site, bottle: &Bottle<'_>, id: &str, lines: &str) {
    let text = format!("FROM {}\n{lines}", site.clients());
    let arguments = json!({ "dockerfile": text, "justification": "a program is missing" });
    let asked = call(site, bottle, "capability-block", &arguments);
    wait_for_pending(site, bottle, id);
    let output = approve(site, bottle, id, &[]).ok();
    assert!(output.stderr.contains(&format!("launcher resume {}", bottle.id())), "{output:#?}");
    assert_eq!(asked.answer()["status"], "approved");
}

fn resumed(site: &Site, bottle: &Bottle<'_>, more: &[&str]) -> Output {
    let mut args = vec!["resume", bottle.id(), "--yes", "--detach"];
    args.extend(more);
    args.extend(["--", "sleep", "900"]);
    site.launcher(&args)
}

fn docker(args: &[&str]) -> String {
    let output: Output = Command::new("docker").args(args).output().unwrap().into();
    output.ok().stdout
}

/// The images that were made for a bottle.
fn images(bottle: &Bottle<'_>) -> Vec<String> {
    let name = format!("bottle/agent-{}", bottle.id());
    docker(&["images", "--format", "{{.Repository}}:{{.Tag}}", &name]).lines().map(str::to_owned).collect()
}

/// Forgets a bottle, and its image with it.
#[track_caller]
fn forget(site: &Site, bottle: &Bottle<'_>) {
    site.launcher(&["cleanup", "--forget", bottle.id()]).ok();
    let label = format!("label=dev.bottle.id={}", bottle.id());
    assert_eq!(docker(&["images", "-q", "-f", &label]), "", "neither by its name nor without one");
    assert!(!bottle.dir().path().exists());
}

#[test]
fn a_bottle_goes_on_with_its_work_in_the_container_that_was_approved() {
    let Some(site) = Site::new() else { return };
    let world = World::start(&site);
    let bottle = working(&site, &world);
    bottle
        .sh("printf 'left\\n' > left.txt; chmod 750 left.txt; mkdir -p deep; ln -s ../left.txt deep/link; rm given.txt")
        .ok();
    bottle.sh("git init -q . && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m one").ok();
    let host = ask_hosts(&site, &bottle, &[ASKED]);
    wait_for_pending(&site, &bottle, "p1");
    approve(&site, &bottle, "p1", &[]).ok();
    assert_eq!(host.answer()["status"], "approved");
    assert!(reaches(&bottle, ASKED));
    granted(
        &site,
        &bottle,
        "p2",
        "ENV GREETING=\"from the image\" PATH=$PATH:/opt/tool/bin\nRUN mkdir -p /opt/tool/bin \\\n && printf \
         '#!/bin/sh\\necho new program\\n' > /opt/tool/bin/newprog \\\n && chmod 755 /opt/tool/bin/newprog\n\
         WORKDIR /opt/tool\nUSER 1000\nRUN curl -sSf https://files.world.example/public/hello > /tmp/hello && id -u > /tmp/whose\n",
    );
    let running = site.launcher(&["resume", bottle.id(), "--yes"]);
    assert!(running.status == 2 && running.stderr.contains("is running"), "{running:#?}");
    bottle.stop();
    // Said beforehand, without doing any of it; also where no engine answers.
    for host in [None, Some("unix:///nowhere.sock")] {
        let mut command = site.command();
        command.args(["resume", bottle.id(), "--dry-run", "--", "sleep", "900"]);
        host.into_iter().for_each(|host| {
            command.env("DOCKER_HOST", host);
        });
        let said: Output = command.output().unwrap().into();
        let said = said.ok();
        for words in [&format!("bottle {}\n", bottle.id()), "then: sleep 900", "no engine answered"] {
            let is_wanted = host.is_some() || words != "no engine answered";
            assert_eq!(said.stdout.contains(words), is_wanted, "{words}: {said:#?}");
        }
        for words in ["goes on from where it ended", "RUN mkdir -p /opt/tool/bin", "p1: "] {
            assert!(said.stderr.contains(words), "{words}: {said:#?}");
        }
    }
    assert!(!bottle.dir().has_lived() && images(&bottle).is_empty(), "nothing was done");
    site.assert_nothing_left();
    let output = resumed(&site, &bottle, &[]).ok();
    assert_eq!(bottle.exec(&["newprog"]).ok().stdout, "new program\n", "{output:#?}");
    let here = bottle.sh("echo $GREETING; id -u; pwd; ls -la . deep; cat left.txt; cat /tmp/whose; test -s /tmp/hello && echo fetched").ok();
    for words in ["from the image\n1000\n/workspace\n", "-rwxr-x--- ", "link -> ../left.txt", "left\n", "fetched"] {
        assert!(here.stdout.contains(words), "{words}: {here:#?}");
    }
    assert!(!here.stdout.contains("given.txt"), "what was removed stays so: {here:#?}");
    // What was asked is remembered; what was granted is over.
    let before = call(&site, &bottle, "check-proposal", &json!({ "id": "p1", "wait_seconds": 0 })).answer();
    assert_eq!(before["status"], "ended", "{before}");
    let before = call(&site, &bottle, "check-proposal", &json!({ "id": "p2", "wait_seconds": 0 })).answer();
    assert_eq!(before["status"], "approved", "{before}");
    assert!(!reaches(&bottle, ASKED) && reaches(&bottle, "files.world.example"));
    let next = ask_hosts(&site, &bottle, &[NEIGHBOUR]);
    wait_for_pending(&site, &bottle, "p3");
    site.launcher(&["reject", bottle.id(), "p3"]).ok();
    assert_eq!(next.answer()["status"], "rejected");
    bottle.sh("echo more > more.txt").ok();
    bottle.stop();
    // Work of both lives comes home, against what was there at first.
    let diff = site.launcher(&["diff", bottle.id()]).ok().stdout;
    for file in ["left.txt", "more.txt", "given.txt"] {
        assert!(diff.contains(file), "{diff}");
    }
    site.launcher(&["take", bottle.id()]).ok();
    assert_eq!(std::fs::read_to_string(site.work().join("more.txt")).unwrap(), "more\n");
    let log = site.launcher(&["audit", bottle.id()]).ok().stdout;
    assert!(log.contains("launched again") && log.contains("p3 asked for"), "{log}");
    site.launcher(&["audit", "verify", bottle.id()]).ok();
    // The same Dockerfile on the same image is not carried out again, and can be left out.
    let again = resumed(&site, &bottle, &[]).ok();
    assert_eq!(bottle.log("keeper").matches("carrying the Dockerfile out").count(), 1, "{again:#?}");
    assert_eq!(bottle.exec(&["newprog"]).status, 0);
    bottle.sh("echo still more >> more.txt; rm left.txt").ok();
    bottle.stop();
    // What was taken is no change of the operator's; what they changed since is theirs.
    std::fs::write(site.work().join("own.txt"), "own\n").unwrap();
    let diff = site.launcher(&["diff", bottle.id()]).ok().stdout;
    assert!(diff.contains("more.txt") && diff.contains("left.txt") && !diff.contains("given.txt"), "{diff}");
    let taken = site.launcher(&["take", bottle.id()]).ok();
    assert!(taken.stderr.contains("1 written, 1 removed"), "{taken:#?}");
    assert_eq!(std::fs::read_to_string(site.work().join("more.txt")).unwrap(), "more\nstill more\n");
    assert!(!site.work().join("left.txt").exists() && site.work().join("own.txt").exists());
    resumed(&site, &bottle, &["--no-dockerfile"]).ok();
    assert_ne!(bottle.exec(&["newprog"]).status, 0);
    bottle.stop();
    site.assert_nothing_left();
    forget(&site, &bottle);
}

/// What a Dockerfile tries while it is carried out; each line of its answer is a name and what came of it.
const TRY: &str = r#"
import errno, os, socket, subprocess, sys
def say(name, what): print(name, what, flush=True)
def tcp(name, host, port):
    try: socket.create_connection((host, port), 3).close(); say(name, "connected")
    except OSError as e: say(name, "refused")
attacker, api, gateway, secrets = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]
tcp("attacker", attacker, 443)
tcp("api", api, 443)
tcp("gateway", gateway, 2375)
tcp("gateway-ssh", gateway, 22)
base = gateway.rsplit(".", 1)[0] + "."
first = int(gateway.rsplit(".", 1)[1])
for name, place, port in [("cred-proxy", 2, 9099), ("git-gate", 3, 9418), ("supervise", 4, 9100)]: tcp(name, base + str(first + place), port)
tcp("ok-pipelock", "pipelock", 8888)
def curl(name, url):
    done = subprocess.run(["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-m", "10", url], capture_output=True, text=True)
    say(name, "open" if done.returncode == 0 and done.stdout.startswith("2") else "refused")
curl("ok-allowed", "https://files.world.example/public/hello")
curl("other-host", "https://attacker.world.example/")
curl("route-host", "https://api.world.example/v1/hello")
curl("by-name", "http://supervise:9100/mcp")
for name, path in [("engine", "/var/run/docker.sock"), ("engine-run", "/run/docker.sock"), ("workspace", "/workspace/left.txt")]:
    say(name, "there" if os.path.exists(path) else "refused")
def tried(name, deed):
    try: deed(); say(name, "done")
    except (OSError, ValueError) as e: say(name, "refused")
tried("mount", lambda: (_ for _ in ()).throw(OSError()) if subprocess.run(["mount", "-t", "tmpfs", "x", "/mnt"], capture_output=True).returncode else None)
tried("mknod", lambda: os.mknod("/dev/sda9", 0o60600, os.makedev(8, 0)))
tried("chroot", lambda: os.chroot("/tmp"))
tried("raw-socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
tried("packet-socket", lambda: socket.socket(17, 3, 768))
tried("first-process", lambda: open("/proc/1/fd/0"))
tried("first-memory", lambda: open("/proc/1/mem", "r+b"))
tried("first-environment", lambda: open("/proc/1/environ").read())
tried("sysctl", lambda: open("/proc/sys/kernel/core_pattern", "w").write("x"))
tried("ok-chown", lambda: (open("/tmp/own", "w").close(), os.chown("/tmp/own", 1000, 1000)))
def as_first():
    pid = os.fork()
    if pid == 0:
        try:
            os.setgid(64999); os.setuid(64999)
            open("/proc/1/fd/0"); os._exit(0)
        except OSError: os._exit(1)
    if os.waitpid(pid, 0)[1]: raise OSError()
tried("as-the-first-processs-user", as_first)
seen = "\n".join(f"{k}={v}" for k, v in os.environ.items())
for root in ["/proc", "/.bottle", "/run", "/tmp", "/root", "/etc"]:
    for folder, _, files in os.walk(root):
        for file in files:
            path = os.path.join(folder, file)
            if folder.startswith("/proc") and file not in ("environ", "cmdline", "mountinfo"): continue
            try: seen += open(path, errors="replace").read(1 << 20)
            except OSError: pass
say("credential", "found" if any(s[::-1] in seen for s in secrets) else "refused")
bounding = [l.split()[1] for l in open("/proc/self/status") if l.startswith("CapBnd")][0]
say("capabilities", bounding)
say("no-new-privileges", [l.split()[1] for l in open("/proc/self/status") if l.startswith("NoNewPrivs")][0])
"#;

#[test]
fn a_dockerfile_that_tries_everything_gets_none_of_it() {
    let Some(site) = Site::new() else { return };
    let world = World::start(&site);
    let bottle = working(&site, &world);
    bottle.sh("printf left > left.txt").ok();
    let gateway = bottle.dir().metadata().map(|_| gateway(&bottle)).unwrap();
    let script: String = TRY.bytes().map(|byte| format!("\\0{byte:03o}")).collect();
    // Said backwards, or it would be found in its own command line.
    let secret: String = world.canary().chars().rev().collect();
    let lines = format!(
        "RUN printf '%b' '{script}' > /try.py && python3 /try.py {attacker} {api} {gateway} {secret} > /tried.txt 2>&1 || true\n\
         RUN cp /bin/sh /usr/bin/rooted && chmod 4755 /usr/bin/rooted && cp \"$(command -v id)\" /usr/bin/rootid && chmod 4755 /usr/bin/rootid\n\
         RUN cp -r /.bottle /kept; sed -i 's/^agent.*//' /etc/passwd; printf 'agent:x:0:0::/root:/bin/sh\\n' >> /etc/passwd\n\
         RUN (while :; do date > /next && mv /next /stayed; sleep 0.1; done) > /dev/null 2>&1 & until test -e /stayed; do sleep 0.1; done\n\
         RUN rm -f /.bottle/bottle-init; printf '#!/bin/sh\\n' > /.bottle/bottle-init; rm -rf /workspace; \
         ln -s /etc /workspace\nUSER root\n",
        attacker = world.attacker_ip(),
        api = world.api_ip(),
    );
    granted(&site, &bottle, "p1", &lines);
    bottle.stop();
    let output = resumed(&site, &bottle, &[]).ok();
    let said = bottle.sh("cat /tried.txt").ok().stdout;
    assert!(said.lines().count() > 25, "{said} {output:#?}");
    for line in said.lines() {
        let (name, came) = line.split_once(' ').unwrap_or((line, ""));
        match name {
            "ok-pipelock" => assert_eq!(came, "connected", "{said}"),
            "ok-allowed" => assert_eq!(came, "open", "{said}"),
            "ok-chown" => assert_eq!(came, "done", "{said}"),
            // CHOWN 0, DAC_OVERRIDE 1, FOWNER 3, SETGID 6, SETUID 7.
            "capabilities" => assert_eq!(u64::from_str_radix(came, 16), Ok(0b1100_1011), "{said}"),
            "no-new-privileges" => assert_eq!(came, "1", "{said}"),
            _ => assert_eq!(came, "refused", "{name}: {said}"),
        }
    }
    // Nor is the agent more in it than it was: no rights by a file's mode, by a name, or by what USER said.
    let me = bottle
        .sh("id -u; rootid -u; rooted -c 'id -u' 2>/dev/null; cat /proc/self/status | grep -E 'CapEff|NoNewPrivs'")
        .ok()
        .stdout;
    assert!(!me.lines().any(|line| line == "0") && me.starts_with("1000\n"), "{me}");
    assert!(me.contains("CapEff:\t0000000000000000") && me.contains("NoNewPrivs:\t1"), "{me}");
    // What it left running ended; what it wrote over the launcher's own files is not there.
    let stayed = bottle.sh("cat /stayed; sleep 1; cat /stayed").ok().stdout;
    let stayed: Vec<&str> = stayed.lines().collect();
    assert!(stayed.len() == 2 && stayed[0] == stayed[1], "{stayed:?}");
    assert_eq!(bottle.sh("test -x /.bottle/bottle-init && cat left.txt").stdout, "left");
    // Its copy of the build's certificate is of an authority whose key is gone: this life has another.
    let ours = bottle.sh("cat /.bottle/ca.pem").ok().stdout;
    assert!(!bottle.sh("cat /kept/ca.pem").ok().stdout.is_empty());
    assert_ne!(bottle.sh("cat /kept/ca.pem").ok().stdout, ours);
    assert!(reaches(&bottle, "files.world.example"));
    // The image says of itself what the manifest's says, with nothing of the build in it.
    let [image] = images(&bottle).try_into().unwrap();
    let inspect = docker(&["inspect", "-f", "{{json .Config}}", &image]);
    for gone in ["HTTP_PROXY", "pipelock:8888", "SSL_CERT_FILE", world.canary(), "64999"] {
        assert!(!inspect.to_lowercase().contains(&gone.to_lowercase()), "{gone}: {inspect}");
    }
    let look = format!("look-{}", bottle.id());
    docker(&["create", "--name", &look, &image, "x"]);
    let own = docker(&["cp", &format!("{look}:/.bottle"), "-"]);
    docker(&["rm", &look]);
    assert!(own.contains(".bottle/ca.pem") && !own.contains("BEGIN CERTIFICATE"), "{own}");
    bottle.stop();
    site.assert_nothing_left();
    forget(&site, &bottle);
}

/// The first address of a bottle's internal network.
fn gateway(bottle: &Bottle<'_>) -> String {
    let name = format!("bottle-{}-internal", bottle.id());
    let subnet = docker(&["network", "inspect", "-f", "{{range .IPAM.Config}}{{.Subnet}}{{end}}", &name]);
    let (base, last) = subnet.trim().split_once('/').unwrap().0.rsplit_once('.').unwrap();
    format!("{base}.{}", last.parse::<u8>().unwrap() + 1)
}

#[test]
fn what_a_dockerfile_may_not_say_is_refused_when_it_is_asked_for() {
    let Some(site) = Site::new() else { return };
    let world = World::start(&site);
    let bottle = working(&site, &world);
    let image = site.clients();
    let ask = |text: &str| {
        let body = json!({
            "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": { "name": "capability-block", "arguments": { "dockerfile": text, "justification": "j" } },
        });
        says(&bottle, &body.to_string()).stdout
    };
    for (lines, why) in [
        ("COPY / /x", "line 2: only FROM, RUN, ENV, WORKDIR and USER"),
        ("ADD http://x.example/ /x", "line 2: only FROM"),
        ("RUN true\nENTRYPOINT [\"/x\"]", "line 3: only FROM"),
        ("ARG A=1", "line 2: only FROM"),
        ("RUN [\"/x\"]", "line 2: RUN takes a line of the shell"),
        ("RUN --mount=type=bind,target=/x ls", "line 2: RUN takes no options"),
        ("RUN cat <<EOF", "line 2: a here-document"),
        ("FROM scratch", "line 2: there can be one FROM"),
        ("ENV LD_PRELOAD=/x.so", "line 2: the bottle sets this variable"),
        ("ENV HTTPS_PROXY=http://x.example", "line 2: the bottle sets this variable"),
        ("ENV PATH=/x", "line 2: PATH can be extended"),
        ("RUN a \\\\\nb", "line 2: one backslash"),
    ] {
        let said = ask(&format!("FROM {image}\n{lines}\n"));
        assert!(said.contains(why), "{lines}: {said}");
    }
    assert!(ask("FROM scratch\nRUN x\n").contains("line 1: FROM must be the image of the bottle"));
    assert!(ask(&format!("# syntax=x/y\nFROM {image}\n")).contains("line 1: a parser directive"));
    assert_eq!(status(&site, &bottle, "p1"), None, "none of these came before a person");
    granted(&site, &bottle, "p1", "ENV A=1 PATH=/x:$PATH\nRUN true \\\n && true\nWORKDIR /x\nUSER root\n");
    bottle.stop();
}

#[test]
fn a_keeper_that_is_killed_while_it_builds_leaves_nothing_and_a_step_that_fails_says_why() {
    let Some(site) = Site::new() else { return };
    let world = World::start(&site);
    let bottle = working(&site, &world);
    bottle.sh("echo left > left.txt").ok();
    granted(&site, &bottle, "p1", "RUN echo it-says-why; false\n");
    bottle.stop();
    let saved = std::fs::read(bottle.dir().workspace()).unwrap();
    let failed = resumed(&site, &bottle, &[]);
    assert_eq!(failed.status, 125, "{failed:#?}");
    for words in ["line 2", "it-says-why", "--no-dockerfile"] {
        assert!(failed.stderr.contains(words), "{words}: {failed:#?}");
    }
    site.assert_nothing_left();
    assert_eq!(images(&bottle), [""; 0]);
    assert_eq!(std::fs::read(bottle.dir().workspace()).unwrap(), saved, "what was saved is untouched");
    // Killed while a step runs, and just before and after the image is made.
    std::fs::write(bottle.dir().dockerfile(), format!("FROM {}\nRUN sleep 3\n", site.clients())).unwrap();
    let moments: [(&str, &str); 2] = [("a step", "step 1 of 1"), ("the image", "making the image")];
    for (what, said) in moments {
        let before = bottle.log("keeper").matches(said).count();
        let mut command = site.command();
        command.args(["resume", bottle.id(), "--yes", "--", "sleep", "900"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_until(what, || (bottle.log("keeper").matches(said).count() > before).then_some(()));
        signal(bottle.keeper(), Signal::KILL);
        let output = finish(child);
        assert_eq!(output.status, 125, "{what}: {output:#?}");
        site.launcher(&["cleanup"]).ok();
        site.assert_nothing_left();
        assert_eq!(images(&bottle), [""; 0], "{what}");
        assert_eq!(std::fs::read(bottle.dir().workspace()).unwrap(), saved, "{what}");
    }
    // And then it goes on as if nothing had been.
    resumed(&site, &bottle, &[]).ok();
    assert_eq!(bottle.sh("cat left.txt").ok().stdout, "left\n");
    bottle.stop();
    forget(&site, &bottle);
}

#[test]
fn what_cannot_be_resumed_says_why_and_what_to_do() {
    let Some(site) = Site::new() else { return };
    let world = World::start(&site);
    let bottle = working(&site, &world);
    bottle.sh("echo left > left.txt").ok();
    bottle.stop();
    let refused = |words: &[&str]| {
        let output = resumed(&site, &bottle, &[]);
        assert_eq!(output.status, 2, "{output:#?}");
        words.iter().for_each(|words| assert!(output.stderr.contains(words), "{words}: {output:#?}"));
    };
    let unknown = site.launcher(&["resume", "nobody"]);
    assert!(unknown.status == 2 && unknown.stderr.contains("launcher ps --all"), "{unknown:#?}");
    std::fs::write(bottle.dir().dockerfile(), "FROM another\nRUN true\n").unwrap();
    refused(&["line 1: FROM must be", &site.clients(), "--no-dockerfile"]);
    std::fs::remove_file(bottle.dir().dockerfile()).unwrap();
    let manifest = site.path("config/bottle/bottles/dev.md");
    let text = std::fs::read(&manifest).unwrap();
    std::fs::remove_file(&manifest).unwrap();
    refused(&["dev", "launcher take"]);
    std::fs::write(&manifest, text).unwrap();
    let path = bottle.dir().workspace();
    std::fs::rename(&path, path.with_extension("away")).unwrap();
    refused(&["nothing saved", "launcher run"]);
    std::fs::rename(path.with_extension("away"), &path).unwrap();
    let metadata = bottle.dir().metadata().unwrap();
    let elsewhere = launcher::state::Metadata { engine: Some("unix:///elsewhere.sock".to_owned()), ..metadata.clone() };
    bottle.dir().write_metadata(&elsewhere).unwrap();
    refused(&["unix:///elsewhere.sock", "DOCKER_HOST="]);
    bottle.dir().write_metadata(&metadata).unwrap();
    resumed(&site, &bottle, &[]).ok();
    assert_eq!(bottle.sh("cat left.txt").ok().stdout, "left\n");
    bottle.stop();
    site.assert_nothing_left();
}
