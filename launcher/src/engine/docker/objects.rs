//! Networks and containers: creating them, taking them back. What is taken back is found by its labels and exact name,
//! all of it, and removed by id.

use super::failure::{failed, late, said};
use super::{DEED_WITHIN, Inner, Key, LOOK_WITHIN, REMOVE_WITHIN, look};
use crate::engine::{ContainerSpec, EngineError, Kind, NetworkMode, NetworkSpec, Owner, Step, Undo, body};
use bollard::errors::Error;
use bollard::models::{NetworkConnectRequest, NetworkDisconnectRequest};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, InspectNetworkOptions, ListContainersOptionsBuilder,
    ListNetworksOptions, ListNetworksOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions,
};
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

/// How often a removal is tried; the engine's own clean-up of an endpoint may still be running.
const REMOVALS: u32 = 20;

/// Between two tries, and between two looks at a removal that someone else began.
const PAUSE: Duration = Duration::from_millis(20);

impl Inner {
    pub(super) async fn apply(&self, step: &Step) -> Result<(), EngineError> {
        match step {
            Step::CreateNetwork(spec) => self.create_network(spec).await,
            Step::CreateContainer(spec) => self.create_container(spec).await,
            Step::Connect { container, network, address } => self.connect_network(container, network, *address).await,
            Step::Start { container } => self.start(container).await,
        }
    }

    pub(super) async fn undo(&self, undo: &Undo) -> Result<(), EngineError> {
        let what = match undo {
            Undo::RemoveContainer { name, .. } => format!("could not remove container {name}"),
            Undo::RemoveNetwork { name, .. } => format!("could not remove network {name}"),
            Undo::RemoveImage { reference, .. } => format!("could not remove image {reference}"),
        };
        let removal = async {
            match undo {
                Undo::RemoveContainer { name, owner } => self.remove_containers(name, owner, &what).await,
                Undo::RemoveNetwork { name, owner } => self.remove_networks(name, owner, &what).await,
                Undo::RemoveImage { reference, owner } => self.remove_own_image(reference, owner).await,
            }
        };
        tokio::time::timeout(REMOVE_WITHIN, removal).await.map_err(|_| late(what.as_str(), REMOVE_WITHIN))??;
        self.forget(&of_undo(undo));
        Ok(())
    }

    async fn create_network(&self, spec: &NetworkSpec) -> Result<(), EngineError> {
        let what = format!("could not create network {}", spec.name);
        let taken = || said(what.as_str(), Kind::Conflict, format!("a network is called {} already", spec.name));
        if !self.networks_named(&spec.name, &what).await?.is_empty() {
            return Err(taken());
        }
        let created = look(&what, LOOK_WITHIN, self.client.create_network(body::network(spec, self.api))).await?;
        if !created.warning.is_empty() {
            // Two of one name: ours goes, so that a conflict never leaves anything behind.
            look(&what, LOOK_WITHIN, self.client.remove_network(&created.id)).await?;
            return Err(taken());
        }
        self.remember(Key::Network(spec.name.clone()), created.id);
        Ok(())
    }

    async fn create_container(&self, spec: &ContainerSpec) -> Result<(), EngineError> {
        let what = format!("could not create container {}", spec.name);
        let peer = match &spec.network {
            NetworkMode::On { network, .. } => self.network_id(network, &what).await?,
            NetworkMode::Of(container) => self.container_id(container, &what).await?,
            NetworkMode::None => String::new(),
        };
        let body = body::container(spec, &(self.seccomp)(spec.seccomp), &peer);
        let options = CreateContainerOptionsBuilder::default().name(&spec.name).build();
        let created = look(&what, LOOK_WITHIN, self.client.create_container(Some(options), body)).await?;
        self.remember(Key::Container(spec.name.clone()), created.id);
        Ok(())
    }

    async fn connect_network(
        &self,
        container: &str,
        network: &str,
        address: Option<Ipv4Addr>,
    ) -> Result<(), EngineError> {
        let what = format!("could not connect container {container} to network {network}");
        let network_id = self.network_id(network, &what).await?;
        let id = self.container(container);
        // The engine accepts the same connection twice as long as the container is not running.
        let seen =
            look(&what, LOOK_WITHIN, self.client.inspect_container(&id, None::<InspectContainerOptions>)).await?;
        let networks = seen.network_settings.and_then(|s| s.networks).unwrap_or_default();
        if networks.keys().any(|key| key == network || *key == network_id) {
            return Err(said(what, Kind::Conflict, "it is on that network already".to_owned()));
        }
        let request = NetworkConnectRequest { container: id, endpoint_config: Some(body::endpoint(address, &[])) };
        look(&what, LOOK_WITHIN, self.client.connect_network(&network_id, request)).await
    }

    async fn start(&self, container: &str) -> Result<(), EngineError> {
        let what = format!("could not start container {container}");
        let id = self.container(container);
        // Starting a running container is no error for the engine, and the client hides the difference.
        let seen =
            look(&what, LOOK_WITHIN, self.client.inspect_container(&id, None::<InspectContainerOptions>)).await?;
        if seen.state.and_then(|s| s.running).unwrap_or(false) {
            return Err(said(what, Kind::Conflict, "it is running already".to_owned()));
        }
        look(&what, DEED_WITHIN, self.client.start_container(&id, None::<StartContainerOptions>)).await
    }

    /// The id of a container. The engine itself would not miss it before the start.
    async fn container_id(&self, name: &str, what: &str) -> Result<String, EngineError> {
        let id = self.container(name);
        let seen = look(what, LOOK_WITHIN, self.client.inspect_container(&id, None::<InspectContainerOptions>)).await?;
        Ok(seen.id.unwrap_or(id))
    }

    /// The id of the one network of that name.
    async fn network_id(&self, name: &str, what: &str) -> Result<String, EngineError> {
        if let Some(id) = self.id(&Key::Network(name.to_owned())) {
            return Ok(id);
        }
        match self.networks_named(name, what).await?.as_slice() {
            [id] => Ok(id.clone()),
            [] => Err(said(what, Kind::NotFound, format!("there is no network {name}"))),
            _ => Err(said(what, Kind::Conflict, format!("more than one network is called {name}"))),
        }
    }

    /// The engine's filter also finds names that only contain this one.
    async fn networks_named(&self, name: &str, what: &str) -> Result<Vec<String>, EngineError> {
        let options = ListNetworksOptionsBuilder::default().filters(&HashMap::from([("name", vec![name])])).build();
        self.network_ids(name, options, what).await
    }

    async fn network_ids(
        &self,
        name: &str,
        options: ListNetworksOptions,
        what: &str,
    ) -> Result<Vec<String>, EngineError> {
        let found = look(what, LOOK_WITHIN, self.client.list_networks(Some(options))).await?;
        Ok(found.into_iter().filter(|n| n.name.as_deref() == Some(name)).filter_map(|n| n.id).collect())
    }

    async fn remove_containers(&self, name: &str, owner: &Owner, what: &str) -> Result<(), EngineError> {
        let options = ListContainersOptionsBuilder::default().all(true).filters(&of(owner)).build();
        let found = look(what, LOOK_WITHIN, self.client.list_containers(Some(options))).await?;
        let path = format!("/{name}");
        let ours = found.into_iter().filter(|c| c.names.iter().flatten().any(|n| *n == path)).filter_map(|c| c.id);
        for id in ours {
            self.remove_container(&id).await.map_err(|e| failed(what, e))?;
        }
        Ok(())
    }

    /// Removes a container by id and returns when it is gone. Without a time limit of its own.
    pub(super) async fn remove_container(&self, id: &str) -> Result<(), Error> {
        let mut tries = 0;
        loop {
            let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
            match self.client.remove_container(id, Some(options)).await {
                Ok(()) => return Ok(()),
                Err(e) if status(&e) == Some(404) => return Ok(()),
                // Someone else is at it: we wait, since "removed" must mean gone.
                Err(e) if status(&e) == Some(409) => {
                    // A container with a hundred thousand files takes minutes; the caller's limit is the only one.
                    self.gone(id).await?;
                    continue;
                }
                Err(e) if tries + 1 == REMOVALS => return Err(e),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
            tries += 1;
        }
    }

    /// Waits a moment for a container to go away.
    async fn gone(&self, id: &str) -> Result<(), Error> {
        for _ in 0..100 {
            match self.client.inspect_container(id, None::<InspectContainerOptions>).await {
                Err(e) if status(&e) == Some(404) => return Ok(()),
                Ok(_) | Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
        Ok(())
    }

    async fn remove_networks(&self, name: &str, owner: &Owner, what: &str) -> Result<(), EngineError> {
        let options = ListNetworksOptionsBuilder::default().filters(&of(owner)).build();
        for id in self.network_ids(name, options, what).await? {
            self.remove_network(&id).await.map_err(|e| failed(what, e))?;
        }
        Ok(())
    }

    async fn remove_network(&self, id: &str) -> Result<(), Error> {
        let mut tries = 0;
        loop {
            match self.client.remove_network(id).await {
                Ok(()) => return Ok(()),
                Err(e) if status(&e) == Some(404) => return Ok(()),
                Err(e) if tries + 1 == REMOVALS => return Err(e),
                Err(_) => self.empty(id).await?,
            }
            tries += 1;
        }
    }

    /// Takes all containers off a network.
    async fn empty(&self, id: &str) -> Result<(), Error> {
        let seen = match self.client.inspect_network(id, None::<InspectNetworkOptions>).await {
            Err(e) if status(&e) == Some(404) => return Ok(()),
            other => other?,
        };
        for (key, endpoint) in seen.containers.unwrap_or_default() {
            // An endpoint whose container is gone has no container id; the engine knows it by the container's name.
            let container = if key.starts_with("ep-") { endpoint.name.unwrap_or_default() } else { key };
            let request = NetworkDisconnectRequest { container, force: Some(true) };
            match self.client.disconnect_network(id, request).await {
                // Gone meanwhile, or not on it any more: the next try to remove the network says whether it matters.
                Ok(()) | Err(Error::DockerResponseServerError { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }
}

/// What a step works on. A connection is a matter of its container: networks are changed by many at once.
pub(super) fn of_step(step: &Step) -> Key {
    match step {
        Step::CreateNetwork(spec) => Key::Network(spec.name.clone()),
        Step::CreateContainer(spec) => Key::Container(spec.name.clone()),
        Step::Connect { container, .. } | Step::Start { container } => Key::Container(container.clone()),
    }
}

/// What an undo works on.
pub(super) fn of_undo(undo: &Undo) -> Key {
    match undo {
        Undo::RemoveContainer { name, .. } => Key::Container(name.clone()),
        Undo::RemoveNetwork { name, .. } => Key::Network(name.clone()),
        Undo::RemoveImage { reference, .. } => Key::Image(reference.clone()),
    }
}

/// Filters for the labels of one bottle.
fn of(owner: &Owner) -> HashMap<&'static str, Vec<String>> {
    let label = |name: &str, value: &str| format!("{}{name}={value}", body::LABEL_PREFIX);
    HashMap::from([("label", vec![label("id", &owner.id), label("host", &owner.host), label("state", &owner.state)])])
}

fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}
