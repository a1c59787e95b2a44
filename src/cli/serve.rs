//! `valetkey serve`: runs the portal until a signal stops it. Binds the port before opening the
//! database, so that a port in use fails early.

use crate::{
    config::Settings,
    server::{Server, clock::SystemClock, installation},
};
use secrecy::ExposeSecret as _;
use std::sync::Arc;

/// Serves until stopped. The error is a sentence for the user.
pub async fn run(settings: Settings) -> Result<(), String> {
    let listener = Server::bind(&settings)?;
    let service = installation::open(settings, Arc::new(SystemClock)).await?;
    if let Some(token) = service
        .invitations
        .setup_link()
        .await
        .map_err(|error| error.to_string())?
    {
        // Printed, never logged: whoever has the link becomes administrator.
        println!(
            "Nobody has an account yet. Open this link within a day to become the first administrator:"
        );
        println!(
            "{}",
            service
                .core
                .addresses
                .absolute(&format!("/setup/{}", token.expose_secret()))
        );
    }
    tracing::info!(address = %service.core.settings.listen, public = service.core.addresses.base(), "serving");
    Server::new(service, listener)
        .serve(super::stop_on_signal)
        .await?;
    tracing::info!("stopped");
    Ok(())
}
