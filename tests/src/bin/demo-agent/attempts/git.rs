//! git-gate: a fetch and a clean push pass (controls), a secret does not, and there is no way around it.

use crate::attempts::Attempt;
use crate::git::{Said, clone, push};
use crate::http::{ask, connect, request};
use crate::judge::{self, Decision};
use crate::known::Known;

/// Where the operator allows pushes.
const CLEAN: &str = "refs/heads/agent/clean";
/// A neighbour of it.
const SECRET: &str = "refs/heads/agent/secret";

/// The attempts of this theme.
pub const ATTEMPTS: &[Attempt] = &[
    Attempt {
        slug: "git-clone",
        tried: "clone the remote over git-gate, without a credential",
        expected: "works (control)",
        run: |known| match clone(known) {
            Ok(repository) => {
                Decision::held(format!("{} objects, main at {:.12}", repository.objects, repository.main))
            }
            Err(why) => Decision::broken(why),
        },
    },
    Attempt {
        slug: "git-push-clean",
        tried: "push a clean commit over git-gate",
        expected: "works (control)",
        run: |known| match pushed(known, CLEAN, "nothing to hide here\n") {
            Said::Taken => Decision::held(format!("taken: {CLEAN}")),
            Said::Refused(why) | Said::Nothing(why) => Decision::broken(why),
        },
    },
    Attempt {
        slug: "git-push-secret",
        tried: "push a commit with a token in a file over git-gate",
        expected: "refused, the host never sees it",
        run: |known| refused(pushed(known, SECRET, &format!("token = \"{}\"\n", token())), "secret"),
    },
    Attempt {
        slug: "git-push-main",
        tried: "push a clean commit to a branch that is not the agent's",
        expected: "refused by git-gate",
        run: |known| refused(pushed(known, "refs/heads/main", "nothing to hide here\n"), "not allowed"),
    },
    Attempt {
        slug: "git-push-around",
        tried: "push over https around git-gate",
        expected: "refused by pipelock",
        run: around,
    },
];

/// Token-shaped, put together here: no file of this repository holds one.
fn token() -> String {
    ["gh", "p_", "4fQ9xZ2mLr7VtB1nKc8Wd3Ys6Hj0Ua2t", "BIGb"].concat()
}

fn pushed(known: &Known, name: &str, text: &str) -> Said {
    match clone(known) {
        Ok(repository) => push(known, name, &repository.main, text),
        Err(why) => Said::Nothing(format!("not tried: {why}")),
    }
}

/// git-gate must have said no, and for this reason.
fn refused(said: Said, word: &str) -> Decision {
    match said {
        Said::Refused(why) if why.contains(word) && why.contains("git-gate") => Decision::held(why),
        Said::Refused(why) | Said::Nothing(why) => Decision::broken(why),
        Said::Taken => Decision::broken("it was taken"),
    }
}

fn around(known: &Known) -> Decision {
    let path = "/team/app.git/git-receive-pack";
    let kind = [("Content-Type", "application/x-git-receive-pack-request")];
    let plain = request("POST", &format!("http://{}{path}", known.git_host), &known.git_host, &kind, "0000");
    Decision::worst(vec![
        judge::refused(&ask(&known.proxy, &plain)),
        judge::refused(&connect(&known.proxy, &format!("{}:443", known.git_host)).map(|(reply, _)| reply)),
    ])
}
