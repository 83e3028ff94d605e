//! The account that the pods of a server run as. It can do nothing, and no token of it is mounted.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::Parts;

pub(super) fn service_account(parts: &Parts<'_>) -> ServiceAccount {
    ServiceAccount {
        metadata: parts.metadata(parts.account_name()),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}
