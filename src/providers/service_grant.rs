//! How a service account gets a token: which request, with which parameters. `oauth::service_account`
//! sends it.

use url::Url;

/// The request that brings a token for content itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceGrant {
    /// The client's own credentials (RFC 6749 section 4.4).
    ClientCredentials,
    /// This portal's token in exchange at the token endpoint (RFC 8693), as Databricks' federation
    /// policies take it. Without a client ID an account-wide policy decides.
    TokenExchange,
    /// `AssumeRoleWithWebIdentity` at the AWS Security Token Service.
    AwsWebIdentity(AwsRole),
    /// Google's Security Token Service, and then, if named, a service account.
    GoogleWorkload {
        /// `//iam.googleapis.com/projects/…/locations/global/workloadIdentityPools/…/providers/…`
        provider: String,
        service_account: Option<String>,
    },
    /// Vault's login by JWT; brings a Vault client token.
    VaultLogin { address: Url, role: String },
    /// No request: the secret that was entered is what content gets.
    StaticSecret,
}

/// The role that AWS is asked for, also with the ID token of a viewer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsRole {
    pub role_arn: String,
    /// The address of the token service in the chosen region.
    pub sts: Url,
    /// In seconds, 900 to 43,200.
    pub duration: u32,
}

/// The variables by which an SDK finds a token of this portal, and itself exchanges it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadFiles {
    /// The variable that names the token's file.
    pub path_variable: &'static str,
    pub variables: Vec<(&'static str, String)>,
}
