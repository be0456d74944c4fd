//! An agent asks and a person answers, in a real bottle: the agent speaks MCP to supervise from inside its container, the
//! operator decides with the launcher's own commands from outside, and what is open is seen with curl and git.

#![allow(clippy::unwrap_used)]

mod ask {
    pub mod scene;

    mod authority;
    mod findings;
    mod hosts;
    mod resume;
    mod routes;
    mod streams;
    mod survival;
}
