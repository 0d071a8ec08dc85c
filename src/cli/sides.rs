//! The two sides of a tenant, opened for a command.

use crate::config::Config;
use crate::crm::{self, Crm};
use crate::daemon::pack;
use crate::error::Result;
use crate::mapping::{self, Mapping};
use crate::pipeline::{default_schema, options};
use crate::registry;
use std::sync::Arc;
use tidemark_contract::Connector;

/// Source, CRM and the mapping between them.
pub struct Sides {
    /// The source.
    pub connector: Arc<dyn Connector>,
    /// The CRM.
    pub crm: Arc<dyn Crm>,
    /// The mapping, checked against both.
    pub mapping: Mapping,
}

impl Sides {
    /// Opens both sides and compiles the mapping against them.
    ///
    /// # Errors
    /// If a side cannot be reached, or the mapping does not fit.
    pub async fn open(config: &Config) -> Result<Self> {
        let pack = pack(config)?;
        let connector = registry::connector(&config.source)?;
        let crm = crm(config)?;
        let catalogue = connector.discover(&[]).await?;
        let model = crm.discover().await?;
        let (mapping, _warnings) =
            mapping::compile(&pack, &catalogue, &default_schema(config), Some(&model), &options(config))?;
        Ok(Self { connector, crm, mapping })
    }
}

/// The tenant's CRM, not yet asked anything.
///
/// # Errors
/// If the profile or its settings make no sense.
pub fn crm(config: &Config) -> Result<Arc<dyn Crm>> {
    Ok(crm::connect(&config.crm.profile, &config.dir, config.crm.client(&config.state.dir))?)
}
