//! The [`Target`] is what tenants' files are brought to when they are opened, and what new tenants start with. It
//! changes while the server runs: a fleet run reads the folder of application migrations anew, and says from which
//! moment on they are in force. Who opens or provisions takes what is in force at that moment.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use super::Role;
use super::template::{Blueprint, Template};
use crate::error::Result;
use crate::sqlite::Wanted;

/// A blueprint with the files that it makes.
pub struct Standing {
    pub blueprint: Blueprint,
    pub template: Template,
}

pub struct Target {
    now: RwLock<Arc<Standing>>,
    /// The same for each kind of file, by role: what an opening asks.
    wanted: [Wanted; 3],
    /// The application's migrations.
    folder: Option<PathBuf>,
}

impl Target {
    /// What `folder` has, up to `ceiling` if there is one. Blocking, as are the others but [`Target::now`].
    pub fn load(folder: Option<PathBuf>, ceiling: Option<u32>) -> Result<Target> {
        let blueprint = Blueprint::load(folder.as_deref())?;
        let blueprint = ceiling.map_or(blueprint.clone(), |version| blueprint.capped(version));
        let template = Template::build(&blueprint)?;
        let wanted = Role::ALL.map(|role| blueprint.of(role).clone().into());
        Ok(Target { now: RwLock::new(Arc::new(Standing { blueprint, template })), wanted, folder })
    }

    pub fn now(&self) -> Arc<Standing> {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn wanted(&self, role: Role) -> &Wanted {
        &self.wanted[role as usize]
    }

    /// What the folder has now, all of it.
    pub fn read(&self) -> Result<Blueprint> {
        Blueprint::load(self.folder.as_deref())
    }

    /// A blueprint made ready to be in force. One caller at a time.
    pub fn prepare(&self, blueprint: Blueprint) -> Result<Standing> {
        let template = Template::build(&blueprint)?;
        Ok(Standing { blueprint, template })
    }

    pub fn put(&self, standing: Standing) {
        for role in Role::ALL {
            self.wanted(role).put(standing.blueprint.of(role).clone());
        }
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(standing);
    }
}
