//! The settings of mail.

use super::{SettingsError, reader::Given};
use lettre::message::Mailbox;
use secrecy::SecretString;

/// How the connection to the mail server is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailTls {
    StartTls,
    Tls,
    None,
}

/// The mail server, and the sender.
#[derive(Clone, Debug)]
pub struct Mail {
    pub host: String,
    pub port: u16,
    pub tls: MailTls,
    /// User name and password.
    pub account: Option<(String, SecretString)>,
    pub from: Mailbox,
}

impl Mail {
    /// `None` without a mail server.
    pub(super) fn check(given: &Given) -> Result<Option<Self>, SettingsError> {
        let password = given.secret("smtp_password")?;
        let Some(host) = given.text("smtp_host") else {
            return Ok(None);
        };
        let from = given.text("mail_from").ok_or_else(|| {
            SettingsError("mail_from is missing: smtp_host needs a sender".into())
        })?;
        let from = from.parse().map_err(|_| {
            SettingsError(format!(
                "mail_from must be an address such as Valetkey <portal@example.org>, not {from:?}"
            ))
        })?;
        let (tls, usual_port) = match given.text_or_default("smtp_tls").as_str() {
            "tls" => (MailTls::Tls, 465),
            "none" => (MailTls::None, 25),
            _ => (MailTls::StartTls, 587),
        };
        let account = match (given.text("smtp_user"), password) {
            (Some(user), Some(password)) => Some((user, password)),
            (None, None) => None,
            _ => {
                return Err(SettingsError(
                    "smtp_user and smtp_password_file belong together: set both, or none".into(),
                ));
            }
        };
        if tls == MailTls::None && account.is_some() {
            return Err(SettingsError(
                "smtp_tls = \"none\" would send the password in clear: use starttls or tls".into(),
            ));
        }
        Ok(Some(Self {
            host,
            port: given
                .number("smtp_port")
                .and_then(|port| u16::try_from(port).ok())
                .unwrap_or(usual_port),
            tls,
            account,
            from,
        }))
    }
}
