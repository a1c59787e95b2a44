//! The demo's deployed app: deployed as a publisher would, where uv and a sandbox are there.

use crate::{
    archive,
    domain::{Id, bundle::Source, change::Change, content::AccessType, integration::Integration},
    service::{Actor, Error, Services, catalog::content::ContentInput},
};
use std::{sync::Arc, time::Duration};

/// How long the runner may take to find its tools.
const PATIENCE: Duration = Duration::from_secs(30);

/// Deploys the app as `publisher`. Returns a line for whoever started the demo: where it is, or why
/// it is not.
pub(super) async fn deploy(
    services: Arc<Services>,
    publisher: Actor,
    integration: Id<Integration>,
    workspace: String,
) -> String {
    let until = tokio::time::Instant::now() + PATIENCE;
    let reason = loop {
        match services.bundles.unavailable().await {
            Ok(None) => break None,
            Ok(Some(reason))
                if tokio::time::Instant::now() > until || !services.runs.is_starting() =>
            {
                break Some(reason);
            }
            _ => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    };
    if let Some(reason) = reason {
        return format!("No deployed sample: {reason}");
    }
    match add(&services, &publisher, integration, workspace).await {
        Ok(address) => format!("4. “Deployed sample” runs in the portal's own sandbox: {address}"),
        Err(error) => format!("No deployed sample: {error}"),
    }
}

async fn add(
    services: &Services,
    publisher: &Actor,
    integration: Id<Integration>,
    workspace: String,
) -> Result<String, Error> {
    let input = ContentInput {
        name: Some("deployed-sample".into()),
        title: Change::Set("Deployed sample".into()),
        description: Some(
            "The same as “Sales dashboard”, as an app that was deployed here.".into(),
        ),
        access: Some(AccessType::LoggedIn),
        ..ContentInput::default()
    };
    let item = services
        .contents
        .create_content(publisher, input)
        .await?
        .content;
    services
        .contents
        .set_associations(publisher, item.id, vec![integration])
        .await?;
    let variable = ("DATABRICKS_HOST".to_owned(), Some(workspace.into()));
    services
        .bundles
        .set_variables(publisher, item.id, vec![variable], false)
        .await?;
    let upload = services.bundles.begin_upload(publisher, item.id).await?;
    let folder = upload.files();
    let packed = upload.packed();
    let written = std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::write(folder.join("app.py"), include_str!("deployed_app.py")))
        .and_then(|()| std::fs::write(folder.join("manifest.json"), MANIFEST))
        .and_then(|()| archive::pack(&folder, &packed));
    written.map_err(|_| Error::Internal("the deployed sample cannot be packed"))?;
    let bundle = services
        .bundles
        .add(publisher, item.id, upload, packed, Source::default())
        .await?;
    services
        .bundles
        .deploy(publisher, item.id, Some(bundle.number), true)
        .await?;
    Ok(services
        .core
        .addresses
        .absolute(&crate::domain::addresses::app(item.id)))
}

const MANIFEST: &str = r#"{"version": 1, "metadata": {"appmode": "python-api", "entrypoint": "app"}, "python": {"package_manager": {"name": "none"}}, "files": {}}"#;
