//! What the engine has and is. Reading its answers is pure and never fails: what cannot be read is left out, and what has
//! no proper owner labels is not ours.

use super::{Inner, LOOK_WITHIN, look};
use crate::engine::{EngineError, EngineFacts, Observed, ObservedContainer, ObservedNetwork, Subnet, body};
use bollard::models::{ContainerSummary, ContainerSummaryStateEnum, Network};
use bollard::query_parameters::{ListContainersOptionsBuilder, ListNetworksOptions, ListNetworksOptionsBuilder};
use std::collections::{BTreeMap, HashMap};

/// Storage drivers that take a size for a writable layer as they are. `overlay2` does so on XFS mounted with project
/// quotas alone, and does not say whether it is: there the keeper's watch must do.
const QUOTA_DRIVERS: [&str; 2] = ["btrfs", "zfs"];

impl Inner {
    pub(super) async fn observe(&self, host: &str, state: &str) -> Result<Observed, EngineError> {
        let what = "could not list what the engine holds";
        let labels = vec![format!("{}host={host}", body::LABEL_PREFIX), format!("{}state={state}", body::LABEL_PREFIX)];
        let filters = HashMap::from([("label", labels)]);
        let containers = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let networks = ListNetworksOptionsBuilder::default().filters(&filters).build();
        let (containers, ours, all) = tokio::try_join!(
            look(what, LOOK_WITHIN, self.client.list_containers(Some(containers))),
            look(what, LOOK_WITHIN, self.client.list_networks(Some(networks))),
            look(what, LOOK_WITHIN, self.client.list_networks(None::<ListNetworksOptions>)),
        )?;
        let names = all.into_iter().filter_map(|n| Some((n.id?, n.name?))).collect();
        Ok(Observed {
            containers: containers.into_iter().filter_map(|c| container(c, &names)).collect(),
            networks: ours.into_iter().filter_map(network).collect(),
        })
    }

    pub(super) async fn facts(&self) -> Result<EngineFacts, EngineError> {
        let what = "could not ask the engine about itself";
        let all = ListContainersOptionsBuilder::default().all(true).build();
        let (info, networks, containers) = tokio::try_join!(
            look(what, LOOK_WITHIN, self.client.info()),
            look(what, LOOK_WITHIN, self.client.list_networks(None::<ListNetworksOptions>)),
            look(what, LOOK_WITHIN, self.client.list_containers(Some(all))),
        )?;
        let mut runtimes: Vec<String> = info.runtimes.unwrap_or_default().into_keys().collect();
        runtimes.sort();
        let mut taken: BTreeMap<String, Vec<Subnet>> = BTreeMap::new();
        for network in networks {
            taken.entry(network.name.clone().unwrap_or_default()).or_default().extend(subnets(&network));
        }
        let mut names: Vec<String> =
            containers.iter().flat_map(|c| c.names.iter().flatten()).map(|n| bare(n)).collect();
        names.sort();
        Ok(EngineFacts {
            version: self.version.clone(),
            product: self.product.clone(),
            api: self.api.to_string(),
            runtimes,
            quota: info.driver.is_some_and(|driver| QUOTA_DRIVERS.contains(&driver.as_str())),
            kernel: info.kernel_version.unwrap_or_default(),
            arch: info.architecture.unwrap_or_default(),
            system: info.operating_system.unwrap_or_default(),
            rootless: info.security_options.unwrap_or_default().iter().any(|option| option.contains("rootless")),
            networks: taken,
            containers: names,
        })
    }
}

fn container(summary: ContainerSummary, names: &HashMap<String, String>) -> Option<ObservedContainer> {
    let (owner, role) = body::owner(&summary.labels.unwrap_or_default())?;
    let networks = summary.network_settings.and_then(|s| s.networks).unwrap_or_default();
    let addresses = networks.into_iter().filter(|(name, _)| name != "none").map(|(key, endpoint)| {
        let asked = endpoint.ipam_config.and_then(|c| c.ipv4_address);
        let set = endpoint.ip_address.filter(|a| !a.is_empty()).or(asked);
        // Until it starts, a network that was connected by id is listed by id.
        let name = names.get(&key).cloned().unwrap_or(key);
        (name, set.and_then(|a| a.parse().ok()))
    });
    Some(ObservedContainer {
        name: bare(summary.names.unwrap_or_default().first()?),
        role,
        owner,
        running: matches!(
            summary.state,
            Some(
                ContainerSummaryStateEnum::RUNNING
                    | ContainerSummaryStateEnum::PAUSED
                    | ContainerSummaryStateEnum::RESTARTING
            )
        ),
        addresses: addresses.collect(),
    })
}

fn network(network: Network) -> Option<ObservedNetwork> {
    let (owner, role) = body::owner(network.labels.as_ref()?)?;
    let option = |name: &str| network.options.as_ref().and_then(|o| o.get(name)).map(String::as_str);
    Some(ObservedNetwork {
        role,
        owner,
        subnets: subnets(&network),
        internal: network.internal.unwrap_or(false),
        isolated: option(body::INHIBIT_IPV4) == Some("true") || option(body::GATEWAY_MODE) == Some("isolated"),
        icc: option(body::ENABLE_ICC) != Some("false"),
        name: network.name?,
    })
}

fn subnets(network: &Network) -> Vec<Subnet> {
    let configs = network.ipam.as_ref().and_then(|i| i.config.as_ref()).into_iter().flatten();
    configs.filter_map(|c| Subnet::parse(c.subnet.as_deref()?).ok()).collect()
}

fn bare(name: &str) -> String {
    name.strip_prefix('/').unwrap_or(name).to_owned()
}
