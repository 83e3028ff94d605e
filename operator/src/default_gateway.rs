//! The gateway that a fresh installation comes with: made when there is none of its name, never changed afterwards.

use kube::api::ObjectMeta;
use portolan_crds::{
    MCPGateway, MCPGatewaySpec,
    gateway::{Authentication, Http, ServerSelection, ServiceAccounts},
    labels,
};

use crate::{cluster::Cluster, config::DefaultGateway, error::Error};

/// Makes the gateway unless there is one of its name. Whether it did.
///
/// # Errors
/// What the API server said.
pub(crate) async fn ensure(cluster: &Cluster, config: &DefaultGateway) -> Result<bool, Error> {
    if cluster.get::<MCPGateway>(&config.namespace, &config.name).await?.is_some() {
        return Ok(false);
    }
    // A create and not an apply: whoever makes one at the same time wins.
    cluster.create(&config.namespace, &build(config)).await
}

fn build(config: &DefaultGateway) -> MCPGateway {
    let service_accounts = ServiceAccounts { audiences: vec![config.audience.clone()] };
    let spec = MCPGatewaySpec {
        replicas: config.replicas,
        authentication: Authentication { service_accounts: Some(service_accounts), ..Authentication::default() },
        servers: ServerSelection::default(),
        http: Http::default(),
    };
    let metadata = ObjectMeta {
        name: Some(config.name.clone()),
        namespace: Some(config.namespace.clone()),
        labels: Some([(labels::MANAGED_BY.to_owned(), labels::MANAGER.to_owned())].into()),
        ..ObjectMeta::default()
    };
    MCPGateway { metadata, spec, status: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_admits_service_accounts_of_its_audience_and_nobody_else() {
        let config = DefaultGateway {
            name: "default".into(),
            namespace: "system".into(),
            audience: "portolan".into(),
            replicas: 2,
        };
        let Authentication { api_keys, service_accounts, anonymous } = build(&config).spec.authentication;
        assert!(api_keys.is_empty());
        assert_eq!(service_accounts.unwrap().audiences, ["portolan"]);
        assert_eq!(anonymous, None);
    }
}
