//! Mail on its way to the operator's mail server (SMTP with TLS). Plain text only.

use crate::{
    config::mail::{Mail, MailTls},
    trust::Trust,
};
use lettre::{
    AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor,
    message::{
        Mailbox,
        header::{ContentType, Header, HeaderName, HeaderValue},
    },
    transport::smtp::{
        authentication::Credentials,
        client::{Certificate, Tls, TlsParameters},
    },
};
use secrecy::ExposeSecret as _;
use std::time::Duration;

/// Time for a connection to the mail server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for one mail with everything around it: lettre itself waits for answers without end.
const TIMEOUT: Duration = Duration::from_secs(15);
/// What is said when it passed.
const TOO_LATE: &str = "the mail server did not answer within 15 s";

/// Sends mail.
pub struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

/// One mail.
pub(super) struct Letter<'a> {
    pub to: &'a str,
    pub subject: String,
    pub text: String,
    /// The same at each try, so that receivers may drop a second copy.
    pub id: String,
}

/// RFC 3834: keeps out-of-office replies away.
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }
    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }
    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

/// Why a mail was not taken.
pub(super) struct MailError {
    /// In words, without addresses or passwords.
    pub why: String,
    /// A later try may succeed.
    pub is_temporary: bool,
    /// It is about the server or the account there, not about this mail: others would fail, too.
    pub concerns_server: bool,
}

impl Mailer {
    /// The error is a message for the operator.
    pub fn new(settings: &Mail, trust: &Trust) -> Result<Self, String> {
        let mut tls = TlsParameters::builder(settings.host.clone());
        if let Some(more) = trust.more() {
            let more = Certificate::from_pem(more).map_err(|error| format!("ca_file: {error}"))?;
            tls = tls.add_root_certificate(more);
        }
        let tls = tls
            .build_rustls()
            .map_err(|error| format!("smtp_host: {error}"))?;
        let mut builder =
            AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(settings.host.clone())
                .port(settings.port)
                .timeout(Some(CONNECT_TIMEOUT))
                .tls(match settings.tls {
                    MailTls::StartTls => Tls::Required(tls),
                    MailTls::Tls => Tls::Wrapper(tls),
                    MailTls::None => Tls::None,
                });
        if let Some((user, password)) = &settings.account {
            let password = password.expose_secret().to_owned();
            builder = builder.credentials(Credentials::new(user.clone(), password));
        }
        Ok(Self {
            transport: builder.build(),
            from: settings.from.clone(),
        })
    }

    /// Hands one mail to the server.
    pub(super) async fn send(&self, letter: Letter<'_>) -> Result<(), MailError> {
        let lasting = |why: String| MailError {
            why,
            is_temporary: false,
            concerns_server: false,
        };
        let to = letter
            .to
            .parse()
            .map_err(|_| lasting("this is no mail address".into()))?;
        let domain = self.from.email.domain();
        let message = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(letter.subject)
            .message_id(Some(format!("<{}@{domain}>", letter.id)))
            .header(ContentType::TEXT_PLAIN)
            .header(AutoSubmitted)
            .body(letter.text)
            .map_err(|error| lasting(error.to_string()))?;
        match tokio::time::timeout(TIMEOUT, self.transport.send(message)).await {
            Ok(Ok(_)) => Ok(()),
            Err(_) => Err(MailError {
                why: TOO_LATE.to_owned(),
                is_temporary: true,
                concerns_server: true,
            }),
            Ok(Err(error)) => {
                // Codes about the server or the account (RFC 5321, RFC 4954); no code: the way there.
                let code = error.status().map(|code| code.to_string());
                let concerns_server = code
                    .as_deref()
                    .is_none_or(|code| ["421", "454", "530", "534", "535", "538"].contains(&code));
                Err(MailError {
                    is_temporary: concerns_server || !error.is_permanent(),
                    concerns_server,
                    why: words(&error),
                })
            }
        }
    }

    /// Whether the server takes the connection, the encryption and the account. The error is a
    /// sentence.
    pub async fn check(&self) -> Result<(), String> {
        match tokio::time::timeout(TIMEOUT, self.transport.test_connection()).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err("the mail server does not answer as one".into()),
            Ok(Err(error)) => Err(words(&error)),
            Err(_) => Err(TOO_LATE.to_owned()),
        }
    }
}

/// What a mail server or the way to it said, in one line.
fn words(error: &lettre::transport::smtp::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = inner.source();
    }
    text.chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .take(300)
        .collect()
}
