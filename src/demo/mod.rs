//! Things to try Tidemark with: the reference CRM and the demo scene.

pub mod crm;
pub mod scene;
