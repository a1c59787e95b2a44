//! All settings, each declared once: name, type, default and meaning. The reader, `valetkey
//! config`, the text of `--help` and the handbook's table are derived from this list.

/// The type of a setting's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// A path of a file or folder.
    Path,
    /// A whole number between these two, both included.
    Number(u64, u64),
    Bool,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A list; in the environment separated by commas or blanks.
    List,
    /// A list whose entries may contain blanks; in the environment separated by commas.
    CommaList,
    /// A secret: only from the environment, never in the settings file, and never printed.
    Secret,
}

/// One setting. In the file it has this name, in the environment `VALETKEY_` and the name in
/// capitals.
#[derive(Debug)]
pub struct Setting {
    pub name: &'static str,
    pub kind: Kind,
    /// The default, as it would be written; in brackets if it is not a fixed value.
    pub default: &'static str,
    /// What it does, in Markdown, for operators.
    pub meaning: &'static str,
}

impl Setting {
    /// The name of the environment variable.
    pub fn variable(&self) -> String {
        format!("VALETKEY_{}", self.name.to_uppercase())
    }
}

const fn setting(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    meaning: &'static str,
) -> Setting {
    Setting {
        name,
        kind,
        default,
        meaning,
    }
}

/// A group of settings that belong together.
#[derive(Debug)]
pub struct Section {
    pub title: &'static str,
    pub settings: &'static [Setting],
}

/// Every setting, in the order of the handbook.
pub static SECTIONS: &[Section] = &[
    Section {
        title: "Addresses",
        settings: &[
            setting(
                "listen",
                Kind::Text,
                "127.0.0.1:8080",
                "Address and port to listen on.",
            ),
            setting(
                "public_url",
                Kind::Text,
                "(http:// and `listen`)",
                "What browsers type; redirect addresses are built from it. With https, cookies are `__Host-` and Secure.",
            ),
            setting(
                "content_url",
                Kind::Text,
                "(the other loopback name, where the portal has one; else none)",
                "Where content runs: an address with `*`, one of another host, or `same-origin`.",
            ),
            setting(
                "tls_certificate_file",
                Kind::Path,
                "(none)",
                "Certificate chain (PEM): TLS and HTTP/2 at `listen`. Together with `tls_key_file`.",
            ),
            setting(
                "tls_key_file",
                Kind::Path,
                "(none)",
                "Private key (PEM) of that certificate.",
            ),
            setting(
                "metrics_listen",
                Kind::Text,
                "(none)",
                "Address and port of `/metrics`, for Prometheus. Without sign-in: choose one that only your own network reaches.",
            ),
            setting(
                "traces_endpoint",
                Kind::Text,
                "(none)",
                "Address of an OpenTelemetry collector (OTLP over HTTP, such as `http://127.0.0.1:4318`). Needs a program built with `--features traces`.",
            ),
            setting(
                "traces_percent",
                Kind::Number(0, 100),
                "10",
                "How many of a hundred traces that begin here are recorded. Traces that a client began are recorded if the client says so.",
            ),
            setting(
                "hsts_seconds",
                Kind::Number(0, 63_072_000),
                "31536000",
                "How long browsers remember that portal and content are reached over https only (`Strict-Transport-Security`). Sent where `public_url` is https. 0: not sent.",
            ),
            setting(
                "trusted_proxies",
                Kind::List,
                "(none)",
                "IP addresses or networks (`10.0.5.0/28`) of outer proxies. Their `X-Forwarded-For` (or `Forwarded`, if that is absent) is trusted and passed on to apps: any client in these networks can claim any address.",
            ),
        ],
    },
    Section {
        title: "Data",
        settings: &[
            setting(
                "data_dir",
                Kind::Path,
                "valetkey-data",
                "Folder of the database `valetkey.db`, of the journal of endings, of the node's identity, and of the spool for tokens that the database would not take.",
            ),
            setting(
                "journal_copy",
                Kind::Path,
                "(none)",
                "A second folder for the journal of endings, on another disk or machine: what `restore` needs to keep ended what was ended after the backup.",
            ),
            setting(
                "database_url_file",
                Kind::Path,
                "(none: SQLite in `data_dir`)",
                "File with the address of a PostgreSQL database, `postgres://user:password@host/name`.",
            ),
            setting(
                "database_url",
                Kind::Secret,
                "(none)",
                "The same address itself; environment only.",
            ),
        ],
    },
    Section {
        title: "Retention",
        settings: &[
            setting(
                "connection_idle_days",
                Kind::Number(0, 3650),
                "0",
                "Connections that were not used for so many days are ended. 0: never.",
            ),
            setting(
                "unconfirmed_connection_days",
                Kind::Number(1, 3650),
                "30",
                "Connections whose viewer never confirmed the account are ended after so many days.",
            ),
            setting(
                "audit_days",
                Kind::Number(0, 36_500),
                "0",
                "Audit records are deleted after so many days, in whole sealed blocks. 0: never.",
            ),
            setting(
                "exchange_count_days",
                Kind::Number(1, 36_500),
                "400",
                "The hourly counts of exchanges (*Audit → Uses*) are deleted after so many days.",
            ),
            setting(
                "leak_days",
                Kind::Number(1, 3650),
                "90",
                "Leak warnings are deleted when nothing was noticed for so many days.",
            ),
            setting(
                "setup_link_days",
                Kind::Number(0, 3650),
                "7",
                "One-time links are deleted so many days after they expired.",
            ),
        ],
    },
    Section {
        title: "Keys",
        settings: &[
            setting(
                "keyring_file",
                Kind::Path,
                "(`keyring` in `data_dir`)",
                "The keys that seal stored secrets, mode 0600. Keep the file, and its backup, apart from the database's.",
            ),
            setting(
                "keyring_command",
                Kind::Text,
                "(none)",
                "A command that prints the keyring instead, from a key service.",
            ),
            setting(
                "keyring",
                Kind::Secret,
                "(none)",
                "The lines of the keyring themselves; environment only.",
            ),
            setting(
                "bootstrap_secret_file",
                Kind::Path,
                "(none)",
                "File with base64 of at least 32 bytes. A program that knows it makes the first administrator by API, once.",
            ),
            setting(
                "bootstrap_secret",
                Kind::Secret,
                "(none)",
                "The same secret itself; environment only.",
            ),
        ],
    },
    Section {
        title: "Outgoing connections",
        settings: &[
            setting(
                "private_hosts",
                Kind::List,
                "(none)",
                "Hosts that may lie in private networks or, as identity providers, speak plain http: `host`, `host:port`, `*.suffix`. Link-local addresses are never allowed.",
            ),
            setting(
                "upstream_sockets",
                Kind::CommaList,
                "(none)",
                "Folders (whole paths) in which apps may listen on Unix sockets.",
            ),
            setting(
                "ca_file",
                Kind::Path,
                "(none)",
                "Certificates (PEM) of authorities that are trusted beside Mozilla's: for identity providers, apps, webhooks, the mail server and the collector of traces. Read at start.",
            ),
        ],
    },
    Section {
        title: "Sign-in at your organisation",
        settings: &[
            setting(
                "sign_in_issuer",
                Kind::Text,
                "(none)",
                "The organisation's OpenID provider, exactly as it writes itself. With it, the other settings of this section count.",
            ),
            setting(
                "sign_in_client_id",
                Kind::Text,
                "(none)",
                "The application there.",
            ),
            setting(
                "sign_in_client_secret_file",
                Kind::Path,
                "(none: a public client)",
                "File with the application's secret.",
            ),
            setting(
                "sign_in_client_secret",
                Kind::Secret,
                "(none)",
                "The same secret itself; environment only.",
            ),
            setting(
                "sign_in_name",
                Kind::Text,
                "(the issuer's host)",
                "What the button calls it.",
            ),
            setting(
                "sign_in_scopes",
                Kind::Text,
                "openid profile email",
                "What is asked for. Add a Databricks scope and `offline_access` where an integration uses the same application: then connecting needs only our consent page.",
            ),
            setting(
                "sign_in_role_claim",
                Kind::Text,
                "roles",
                "The claim that holds roles.",
            ),
            setting(
                "sign_in_roles",
                Kind::CommaList,
                "(none)",
                "`value=role` for each value that brings one; the highest counts.",
            ),
            setting(
                "sign_in_default_role",
                Kind::Word(&["none", "viewer", "publisher", "administrator"]),
                "viewer",
                "The role of people with none of them; `none` refuses them.",
            ),
            setting(
                "sign_in_group_claim",
                Kind::Text,
                "groups",
                "The claim that holds groups.",
            ),
            setting(
                "sign_in_groups",
                Kind::CommaList,
                "(none)",
                "`value=name of the group here`.",
            ),
            setting(
                "local_sign_in",
                Kind::Bool,
                "true",
                "Whether people sign in with passwords kept here.",
            ),
        ],
    },
    Section {
        title: "Sessions",
        settings: &[
            setting(
                "session_idle_minutes",
                Kind::Number(1, 43_200),
                "480",
                "A browser session ends after this long without a request.",
            ),
            setting(
                "session_lifetime_hours",
                Kind::Number(1, 8760),
                "168",
                "And after this long in any case.",
            ),
            setting(
                "api_key_days",
                Kind::Number(0, 3650),
                "0",
                "API keys of people end after so many days, older ones included. 0: never. Keys of content are not concerned.",
            ),
            setting(
                "session_token_minutes",
                Kind::Number(1, 1440),
                "60",
                "Lifetime of the token in the request header.",
            ),
        ],
    },
    Section {
        title: "Mail",
        settings: &[
            setting(
                "smtp_host",
                Kind::Text,
                "(none: no mail)",
                "The mail server that takes what the portal tells people. Together with `mail_from`.",
            ),
            setting(
                "smtp_tls",
                Kind::Word(&["starttls", "tls", "none"]),
                "starttls",
                "How the connection to it is encrypted: after a greeting, from the start, or not at all (only for a server on this machine).",
            ),
            setting(
                "smtp_port",
                Kind::Number(1, 65_535),
                "(587, 465 or 25, by `smtp_tls`)",
                "Its port.",
            ),
            setting("smtp_user", Kind::Text, "(none)", "The account there."),
            setting(
                "smtp_password_file",
                Kind::Path,
                "(none)",
                "File with its password.",
            ),
            setting(
                "smtp_password",
                Kind::Secret,
                "(none)",
                "The same password itself; environment only.",
            ),
            setting(
                "mail_from",
                Kind::Text,
                "(none)",
                "The sender, such as `Valetkey <portal@example.org>`.",
            ),
        ],
    },
    Section {
        title: "Deployed content",
        settings: &[
            setting(
                "run_content",
                Kind::Word(&["sandbox", "none", "off"]),
                "sandbox",
                "Whether content that publishers deploy runs here, on one node. `sandbox`: each process behind walls of its own, with bubblewrap. `none`: ordinary processes of the portal's user, which can read its data; for development only. `off`: not at all.",
            ),
            setting(
                "run_uv",
                Kind::Path,
                "uv",
                "Name or path of uv, which installs packages. Of its own variables, those that say where packages come from and how they are reached (`UV_DEFAULT_INDEX`, …) are passed on to it.",
            ),
            setting(
                "run_bubblewrap",
                Kind::Path,
                "bwrap",
                "Name or path of bubblewrap.",
            ),
            setting(
                "run_python",
                Kind::List,
                "(those that uv finds)",
                "Paths of the Python interpreters that apps may use.",
            ),
            setting(
                "run_network",
                Kind::Word(&["web", "none"]),
                "web",
                "What apps reach besides the portal. `web`: HTTP and HTTPS through a proxy of the portal, which refuses private networks except `run_private_hosts`. `none`: nothing.",
            ),
            setting(
                "run_private_hosts",
                Kind::List,
                "(none)",
                "Hosts on private networks that apps may reach: `host`, `host:port` or `*.suffix`.",
            ),
            setting(
                "run_build_from_source",
                Kind::Bool,
                "true",
                "Whether packages without a wheel are built, which runs their code in a sandbox. It sees the variables of uv.",
            ),
            setting(
                "run_build_minutes",
                Kind::Number(1, 600),
                "30",
                "How long installing packages, and executing a notebook, may take.",
            ),
            setting(
                "run_build_mib",
                Kind::Number(64, 1_048_576),
                "8192",
                "Most that a build may have on the disk, in MiB: the environment, and what is made on the way to it.",
            ),
            setting(
                "run_memory_mib",
                Kind::Number(64, 1_048_576),
                "2048",
                "Most memory of one process of an app, with its children.",
            ),
            setting(
                "run_tasks",
                Kind::Number(16, 65_536),
                "256",
                "Most processes and threads of one process of an app, with its children.",
            ),
            setting(
                "run_max_upload_mib",
                Kind::Number(1, 10_240),
                "256",
                "Largest upload.",
            ),
            setting(
                "run_max_unpacked_mib",
                Kind::Number(1, 102_400),
                "2048",
                "Most that an upload unpacks to.",
            ),
            setting(
                "run_max_files",
                Kind::Number(10, 1_000_000),
                "20000",
                "Most files and folders of an upload.",
            ),
            setting(
                "run_kept_bundles",
                Kind::Number(1, 1000),
                "10",
                "Bundles of an item that are kept.",
            ),
        ],
    },
    Section {
        title: "Process",
        settings: &[
            setting(
                "workers",
                Kind::Number(1, 256),
                "(number of cores)",
                "Threads that serve requests.",
            ),
            setting(
                "open_per_viewer",
                Kind::Number(1, 1_000_000),
                "500",
                "Requests, event streams and WebSockets that one viewer may have open at one process of an app, on each node. Beyond it: 429.",
            ),
            setting(
                "open_per_address",
                Kind::Number(1, 1_000_000),
                "10000",
                "Connections, and requests, event streams and WebSockets at apps, that one client address (IPv6: a /64) may have open on each node; connections also at most half as many as the process may open files. Beyond it: 429, or no connection. Proxies in `trusted_proxies` are not limited.",
            ),
            setting(
                "contact",
                Kind::Text,
                "(none)",
                "Whom people ask for help: an e-mail address, a web address, or words such as `the data team, room 4.12`. Error pages and the sign-in page name it.",
            ),
            setting(
                "log",
                Kind::Text,
                "info",
                "Filter, such as `info,valetkey=debug`.",
            ),
            setting(
                "log_format",
                Kind::Word(&["text", "json"]),
                "text",
                "Format of the log on standard error.",
            ),
        ],
    },
];

/// All settings without their sections.
pub fn all() -> impl Iterator<Item = &'static Setting> {
    SECTIONS.iter().flat_map(|section| section.settings)
}

/// The setting of this name.
pub fn find(name: &str) -> Option<&'static Setting> {
    all().find(|setting| setting.name == name)
}

/// The handbook's page: a table for each section.
pub fn handbook() -> String {
    let mut page = String::from(
        "# Settings\n\nFor operators. Settings come from a TOML file (`--config FILE`, or `VALETKEY_CONFIG`) and from the environment, which wins. \
         Names are the same: `listen` in the file, `VALETKEY_LISTEN` in the environment. Lists in the environment are separated by commas. \
         An unknown name is an error. `valetkey config` prints the values in effect and where each came from.\n",
    );
    for section in SECTIONS {
        page.push_str(&format!(
            "\n## {}\n\n| setting | default | meaning |\n| --- | --- | --- |\n",
            section.title
        ));
        for setting in section.settings {
            let default = if setting.default.starts_with('(') {
                setting.default.trim_matches(['(', ')']).to_owned()
            } else {
                format!("`{}`", setting.default)
            };
            let name = match setting.kind {
                Kind::Secret => setting.variable(),
                _ => setting.name.to_owned(),
            };
            page.push_str(&format!("| `{name}` | {default} | {} |\n", setting.meaning));
        }
    }
    page
}

/// The settings as plain text, for `--help`.
pub fn help() -> String {
    let mut text = String::from(
        "Settings (in the file, or as VALETKEY_… in the environment; `valetkey config` prints those in effect):\n",
    );
    for setting in all() {
        text.push_str(&format!(
            "  {:<28} {}\n",
            setting.name,
            setting.meaning.replace('`', "")
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_the_handbook_is_current() {
        let mut names: Vec<_> = all().map(|setting| setting.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all().count());
        let page = include_str!("../../templates/help/settings.md");
        assert!(
            page == handbook(),
            "write it anew: valetkey config --markdown > templates/help/settings.md"
        );
    }
}
