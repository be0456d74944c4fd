//! `approve`, `reject`, `allow`, `revoke`: a person decides. What is approved is what was shown: its digest goes along, and
//! where the bottle has changed meanwhile, that is shown, and nothing is done.

use super::proposals::answer;
use super::{Here, attach::say};
use crate::cli::{Allow, Approve, Output, Reject, Revoke};
use crate::error::Failure;
use crate::exit::Exit;
use crate::keeper_socket::Hello;
use crate::manifest::TokenRef;
use crate::state::BottleDir;
use crate::ui::clean;
use crate::verdict::{Reply, Request, Review, Subject, Terms, page};
use std::path::PathBuf;
use supervise::wire::Change;

/// How a person is asked, and told.
struct Manner {
    yes: bool,
    output: Output,
}

/// Lets an agent have what it asks for.
pub async fn approve(here: &Here, args: &Approve) -> Result<Exit, Failure> {
    let dir = here.bottle(&args.id)?;
    let mut terms = Terms {
        seconds: args.terms.seconds,
        once: args.once,
        no_inspect: args.no_inspect,
        token_ref: args.token_ref.as_deref().map(|text| token_ref(here, text)).transpose()?,
        edited: None,
        notes: args.notes.clone(),
    };
    if args.edit {
        let plain = Request::Review { subject: Subject::Proposal(args.proposal.clone()), terms: terms.clone() };
        let review = reviewed(ask(here, &dir, plain).await?)?;
        let asked = review.proposal.map_or(review.change, |proposal| proposal.change);
        terms.edited = Some(edit(here, &asked)?);
    }
    let manner = Manner { yes: args.terms.yes, output: args.terms.output };
    decide(here, &dir, Subject::Proposal(args.proposal.clone()), terms, &manner).await
}

/// Lets an agent reach a host that it did not ask for.
pub async fn allow(here: &Here, args: &Allow) -> Result<Exit, Failure> {
    let dir = here.bottle(&args.id)?;
    let terms = Terms { seconds: args.terms.seconds, ..Terms::default() };
    let subject = Subject::Own(Change::Hosts { hosts: vec![args.host.clone()] });
    decide(here, &dir, subject, terms, &Manner { yes: args.terms.yes, output: args.terms.output }).await
}

/// Takes something back.
pub async fn revoke(here: &Here, args: &Revoke) -> Result<Exit, Failure> {
    let dir = here.bottle(&args.id)?;
    let manner = Manner { yes: args.yes, output: args.output };
    decide(here, &dir, Subject::Back(args.what.clone()), Terms::default(), &manner).await
}

/// Says no.
pub async fn reject(here: &Here, args: &Reject) -> Result<Exit, Failure> {
    let dir = here.bottle(&args.id)?;
    let request = Request::Reject { proposal: args.proposal.clone(), reason: args.reason.clone() };
    told(here, args.output, ask(here, &dir, request).await?)
}

/// Shows what would change, asks, and has it done.
async fn decide(
    here: &Here,
    dir: &BottleDir,
    subject: Subject,
    terms: Terms,
    manner: &Manner,
) -> Result<Exit, Failure> {
    let request = Request::Review { subject: subject.clone(), terms: terms.clone() };
    let mut review = reviewed(ask(here, dir, request).await?)?;
    loop {
        here.ui.line(page::review(&review).trim_end());
        if !manner.yes && !here.ui.confirm("Do it?") {
            return Err(Failure {
                exit: Exit::Interrupted,
                message: "nothing was changed".to_owned(),
                hint: Some("answer y on a terminal, or say --yes".to_owned()),
            });
        }
        let digest = review.digest.clone();
        let request = Request::Decide { subject: subject.clone(), terms: terms.clone(), digest };
        match ask(here, dir, request).await? {
            Reply::Changed(changed) if manner.yes => {
                here.ui.line(page::review(&changed).trim_end());
                return Err(changed_meanwhile());
            }
            Reply::Changed(changed) => {
                here.ui.warn("the bottle has changed meanwhile, and nothing was done; it would be this now:");
                review = *changed;
            }
            reply => return told(here, manner.output, reply),
        }
    }
}

fn changed_meanwhile() -> Failure {
    Failure {
        exit: Exit::No,
        message: "the bottle has changed meanwhile, and nothing was done".to_owned(),
        hint: Some("look at what it would be now, and say it again".to_owned()),
    }
}

/// Asks a bottle's keeper.
pub async fn ask(here: &Here, dir: &BottleDir, request: Request) -> Result<Reply, Failure> {
    let (reader, mut writer) = here.keeper(dir).await?;
    say(&mut writer, &Hello::Desk { request: Box::new(request) }).await?;
    let reply = answer(reader).await;
    // Held until the answer: a client that hangs up is answered no more.
    drop(writer);
    reply
}

fn reviewed(reply: Reply) -> Result<Review, Failure> {
    match reply {
        Reply::Review(review) | Reply::Changed(review) => Ok(*review),
        other => Err(unexpected(&other)),
    }
}

/// What a reply that is no answer to what was asked means.
pub fn unexpected(reply: &Reply) -> Failure {
    match reply {
        Reply::Refused { reason, hint } => {
            Failure { exit: Exit::No, message: clean(reason), hint: hint.as_deref().map(clean) }
        }
        Reply::Listing(_) | Reply::Review(_) | Reply::Changed(_) | Reply::Done(_) => {
            Failure::launch("the keeper answers what was not asked", "is it of another version?".to_owned())
        }
    }
}

fn told(here: &Here, output: Output, reply: Reply) -> Result<Exit, Failure> {
    let Reply::Done(done) = reply else { return Err(unexpected(&reply)) };
    match output {
        Output::Json => drop(here.ui.data(&format!("{}\n", serde_json::json!(done)))),
        Output::Text => here.ui.line(&clean(&done.text)),
    }
    Ok(Exit::Success)
}

/// A credential's source as it is named on a command line: a variable, or `file:` and a path.
fn token_ref(here: &Here, text: &str) -> Result<TokenRef, Failure> {
    if let Some(path) = text.strip_prefix("file:") {
        let path = PathBuf::from(path);
        return Ok(TokenRef::File(if path.is_absolute() { path } else { here.cwd.join(path) }));
    }
    let is_name = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if text.is_empty() || !is_name || text.starts_with(|c: char| c.is_ascii_digit()) {
        // It may be the credential itself, so it is not repeated.
        return Err(Failure::usage(
            "--token-ref does not name a variable",
            "write the name of a variable of the environment that the bottle was launched in, or file:PATH, and never \
             the credential itself"
                .to_owned(),
        ));
    }
    Ok(TokenRef::Env(text.to_owned()))
}

/// Lets the operator change a change in an editor: as JSON, which is what it is.
fn edit(here: &Here, change: &Change) -> Result<Change, Failure> {
    let failed = |e: std::io::Error| Failure::launch(format!("it cannot be edited: {e}"), None);
    let root = here.state()?;
    let path = root.path().join(format!(".edit-{}.json", std::process::id()));
    let text = serde_json::to_string_pretty(change).map_err(|e| failed(e.into()))?;
    crate::state::write_private(&path, format!("{text}\n").as_bytes()).map_err(failed)?;
    let editor = ["VISUAL", "EDITOR"].into_iter().find_map(|name| here.env.get(name)).filter(|e| !e.is_empty());
    let mut words = editor.map_or("vi", String::as_str).split_whitespace();
    let mut command = std::process::Command::new(words.next().unwrap_or("vi"));
    let status = command.args(words).arg(&path).status();
    let read = crate::state::read_limited(&path);
    // The first error is what counts; a leftover is the operator's own text in their own folder.
    let _ = std::fs::remove_file(&path);
    if !status.map_err(failed)?.success() {
        return Err(Failure {
            exit: Exit::Interrupted,
            message: "nothing was changed: the editor gave up".to_owned(),
            hint: None,
        });
    }
    let text = read.map_err(failed)?;
    serde_json::from_slice(&text).map_err(|e| {
        Failure::usage(
            format!("what the editor left is no change: {e}"),
            "change values, and leave the names".to_owned(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_named_and_never_written() {
        let here = Here { env: Default::default(), cwd: "/here".into(), ui: crate::ui::Ui::new(true) };
        assert_eq!(token_ref(&here, "MY_TOKEN").unwrap(), TokenRef::Env("MY_TOKEN".to_owned()));
        assert_eq!(token_ref(&here, "file:/a/b").unwrap(), TokenRef::File("/a/b".into()));
        assert_eq!(token_ref(&here, "file:b").unwrap(), TokenRef::File("/here/b".into()));
        for wrong in ["", "ghp-secret", "sk secret", "1ST"] {
            let failure = token_ref(&here, wrong).unwrap_err();
            assert!(!format!("{failure:?}").contains("secret"), "{failure:?}");
        }
    }
}
