//! `attach` and `exec`: one more client of a bottle's keeper.

use super::{Here, run::parting};
use crate::attach::{self, Part, Parted};
use crate::error::Failure;
use crate::exit::Exit;
use crate::keeper_socket::Hello;

/// Shows the agent's terminal.
pub async fn attach(here: &Here, id: &str) -> Result<Exit, Failure> {
    let dir = here.bottle(id)?;
    let (reader, mut writer) = here.keeper(&dir).await?;
    let tty = attach::terminal();
    say(&mut writer, &Hello::Attach { tty }).await?;
    let parted = attach::stay(reader, writer, Part::Guest, tty.is_some(), true, here.ui).await;
    parting(here, &dir, parted)
}

/// Runs one more program in the agent's container.
pub async fn exec(here: &Here, id: &str, argv: Vec<String>) -> Result<Exit, Failure> {
    let dir = here.bottle(id)?;
    let (reader, mut writer) = here.keeper(&dir).await?;
    let tty = attach::terminal();
    say(&mut writer, &Hello::Exec { argv, tty }).await?;
    match attach::stay(reader, writer, Part::Guest, tty.is_some(), true, here.ui).await {
        Parted::LetGo => Ok(Exit::Interrupted),
        parted @ (Parted::Ended(_) | Parted::KeeperLost | Parted::Refused(_) | Parted::Out) => {
            parting(here, &dir, parted)
        }
    }
}

/// Says the first word to a keeper.
pub async fn say(writer: &mut crate::keeper_socket::Writer, hello: &Hello) -> Result<(), Failure> {
    writer.say(hello).await.map_err(|e| Failure::launch(format!("the keeper does not answer: {e}"), None))
}
