//! `show`: what an agent in its bottle, or a bottle, will reach and hold. Needs no engine.

use super::{Here, run::places};
use crate::cli::Show;
use crate::engine::Owner;
use crate::error::Failure;
use crate::exit::Exit;
use crate::images;
use crate::manifest::load::{self, Loaded};
use crate::manifest::{Agent, UserConfig, WorkspaceMode};
use crate::plan::{Facts, Order, print, reach::reach};

/// Shows it.
pub fn show(here: &Here, args: &Show) -> Result<Exit, Failure> {
    let places = places(here)?;
    let loaded = match (&args.agent, &args.bottle) {
        (Some(agent), bottle) => load::load(&places, agent, bottle.as_deref())?,
        (None, bottle) => {
            // clap asks for one of the two.
            let (bottle, warnings) = load::load_bottle(&places, bottle.as_deref().unwrap_or_default())?;
            let agent = Agent {
                name: bottle.name.clone(),
                file: bottle.file.clone(),
                bottle: None,
                description: String::new(),
                prompt: String::new(),
                skills: Vec::new(),
            };
            Loaded { agent, bottle, user: UserConfig::default(), warnings }
        }
    };
    loaded.warnings.iter().for_each(|warning| here.ui.warn(warning));
    let (agent, file) = (loaded.agent.name.clone(), loaded.bottle.file.clone());
    let title = match &args.agent {
        Some(_) => format!("The agent {agent} in the bottle {} has:", loaded.bottle.name),
        None => format!("The bottle {} gives its agent:", loaded.bottle.name),
    };
    let provider = loaded.bottle.agent.provider.name.clone();
    let workspace = loaded.bottle.workspace;
    let order = Order {
        owner: Owner { id: agent.clone(), host: String::new(), state: String::new(), agent },
        agent: loaded.agent,
        bottle: loaded.bottle,
        command: Vec::new(),
        prompt: None,
        workspace: (workspace == WorkspaceMode::Copy).then(|| here.cwd.clone()),
        subnet_pool: loaded.user.subnet_pool,
        images: images::references(),
        attempt: 0,
        resumed: None,
    };
    let reach = reach(&order, &Facts::default());
    if args.json {
        let shown = serde_json::json!({
            "agent": args.agent.as_ref().map(|_| &order.agent.name),
            "bottle": order.bottle.name,
            "file": file,
            "provider": provider,
            "reach": reach,
        });
        here.ui.data(&format!("{shown:#}\n"));
    } else {
        here.ui.data(&format!(
            "{title}\n{}\n",
            print::page(&reach, &[("provider", provider), ("file", file.display().to_string())])
        ));
    }
    Ok(Exit::Success)
}
