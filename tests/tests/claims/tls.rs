//! Certificates: the common clients trust the bottle's CA without a flag; each bottle has one of its own, whose key is
//! on no disk; hosts that are passed through show their own certificate.

use super::docker::docker;
use super::ground::{ALLOWED, ATTACKER, Lease, answers, python, tag};
use bottle_tests::harness::Bottle;
use std::process::{Command, Stdio};

/// Who signed what a host shows in a bottle, by its clients' own rules.
fn issuer(bottle: &Bottle<'_>, host: &str) -> String {
    let script = format!(
        "openssl s_client -proxy pipelock:8888 -connect {host}:443 -servername {host} -verify_return_error \
         </dev/null 2>/dev/null | openssl x509 -noout -issuer"
    );
    bottle.sh(&script).ok().stdout.trim().trim_start_matches("issuer=").to_owned()
}

fn own_ca(bottle: &Bottle<'_>) -> String {
    let got = bottle.exec(&["openssl", "x509", "-in", "/.bottle/ca.pem", "-noout", "-subject"]);
    got.ok().stdout.trim().trim_start_matches("subject=").to_owned()
}

#[test]
fn common_clients_trust_the_bottle_without_a_flag() {
    let Some(ground) = Lease::take() else { return };
    let path = tag("trust");
    let url = format!("https://{ALLOWED}/public/{path}");
    answers(&ground.a, &[&url], "200");
    let urllib = "import sys, urllib.request\nprint(urllib.request.urlopen(sys.argv[1]).status)";
    assert_eq!(python(&ground.a, urllib, &[&url]).ok().stdout.trim(), "200");
    assert_eq!(issuer(&ground.a, ALLOWED), own_ca(&ground.a), "openssl s_client");
    // The host has no repository: git has to get as far as being told so.
    let git = ground.a.exec(&["git", "ls-remote", &format!("https://{ALLOWED}/{path}.git")]);
    assert!(git.stderr.contains("not found"), "{git:#?}");
    assert!(ground.seen_with("api", &format!("{path}.git/info/refs")).len() == 1, "git did not arrive");
    // Without what the bottle gave them they refuse: it is this certificate that they trust.
    let bare = ground.a.exec(&["env", "-u", "SSL_CERT_FILE", "-u", "CURL_CA_BUNDLE", "curl", "-sS", &url]);
    assert_eq!(bare.status, 60, "{bare:#?}");
    let bare = ground.a.exec(&["env", "-u", "SSL_CERT_FILE", "python3", "-c", urllib, &url]);
    assert!(bare.stderr.contains("CERTIFICATE_VERIFY_FAILED"), "{bare:#?}");
}

#[test]
fn files_for_clients_that_are_not_in_the_image_hold_the_same_certificates() {
    let Some(ground) = Lease::take() else { return };
    let count = "openssl pkcs12 -in /.bottle/cacerts.p12 -nokeys -passin pass:changeit | grep -c 'BEGIN CERTIFICATE'";
    let in_store = ground.a.sh(count).ok().stdout;
    let in_bundle = ground.a.sh("grep -c 'BEGIN CERTIFICATE' /.bottle/ca-bundle.pem").ok().stdout;
    assert_eq!(in_store, in_bundle);
    let own = own_ca(&ground.a);
    let subjects = "openssl pkcs12 -in /.bottle/cacerts.p12 -nokeys -passin pass:changeit";
    let name = own.rsplit("CN = ").next().unwrap_or_default().to_owned();
    assert!(!name.is_empty() && ground.a.sh(subjects).ok().stdout.contains(&name), "{own}");
    let node =
        ground.a.sh("test \"$NODE_EXTRA_CA_CERTS\" = /.bottle/ca.pem && openssl x509 -in $NODE_EXTRA_CA_CERTS -noout");
    assert_eq!(node.status, 0, "{node:#?}");
    // Java reads its store in its own way; where this machine has its tool, that is asked too.
    let store = ground.site.path("store.p12");
    docker(&["cp", &format!("{}:/.bottle/cacerts.p12", ground.a.container("agent")), store.to_str().unwrap()]).ok();
    let keytool = Command::new("keytool")
        .args(["-list", "-storetype", "PKCS12", "-storepass", "changeit", "-keystore"])
        .arg(&store)
        .stdin(Stdio::null())
        .output();
    match keytool {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout);
            let trusted = said.lines().filter(|line| line.contains("trustedCertEntry")).count();
            assert_eq!(trusted.to_string(), in_bundle.trim(), "{said}");
        }
        Err(error) => eprintln!("java's keytool is not on this machine ({error}): its store was read by openssl alone"),
    }
}

#[test]
fn every_bottle_has_a_ca_of_its_own() {
    let Some(ground) = Lease::take() else { return };
    let (a, b) = (
        ground.a.exec(&["cat", "/.bottle/ca.pem"]).ok().stdout,
        ground.b.exec(&["cat", "/.bottle/ca.pem"]).ok().stdout,
    );
    assert!(a.contains("BEGIN CERTIFICATE") && b.contains("BEGIN CERTIFICATE"));
    assert_ne!(a, b);
    let with = |ca: &str| {
        let script =
            format!("printf '%s' \"$1\" > /tmp/ca.pem && curl -sS --cacert /tmp/ca.pem https://{ALLOWED}/public/ca");
        ground.a.exec(&["sh", "-c", &script, "sh", ca]).status
    };
    assert_eq!(with(&b), 60, "a's traffic is not signed by b's CA");
    assert_eq!(with(&a), 0);
}

#[test]
fn a_passed_through_host_shows_its_own_certificate() {
    let Some(ground) = Lease::take() else { return };
    let real = issuer(&ground.b, ATTACKER);
    assert!(real.contains("bottle small world"), "{real}");
    assert_eq!(issuer(&ground.b, ALLOWED), own_ca(&ground.b), "the other one is opened");
}

#[test]
fn the_cas_keys_are_on_no_disk() {
    let Some(ground) = Lease::take() else { return };
    // A key in PEM has its first line of base64 below; programs that read keys hold the words alone.
    let keys = "grep -a -A1 -e '-----BEGIN [A-Z ]*PRIVATE KEY-----$' | grep -c '^M'";
    let count = |from: &str, what: &str| {
        let output = Command::new("sh").args(["-c", &format!("{from} | {keys}"), "sh", what]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    // A container of the clients' image that is in no bottle: what the image itself holds (test keys of a library).
    let image = count("docker export \"$1\"", ground.control.id());
    for bottle in [&ground.a, &ground.b] {
        for (role, known) in
            [("agent", image.as_str()), ("pipelock", "0"), ("route-pipelock", "0"), ("cred-proxy", "0")]
        {
            let keys = count("docker export \"$1\"", &bottle.container(role));
            assert_eq!(keys, known, "{role} has a key on its disk");
        }
    }
    let folder = ground.site.path("");
    assert_eq!(count("find \"$1\" -type f -exec cat {} +", folder.to_str().unwrap()), "0", "{}", folder.display());
    assert_eq!(count("printf '%s\\nMHcCAQ\\n'", ""), "0");
    assert_eq!(count("printf -- '-----BEGIN EC PRIVATE KEY-----\\nMHcCAQ\\n'", ""), "1", "a key would be found");
}
