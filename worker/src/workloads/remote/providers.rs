//! The descriptions that this worker knows: the shipped ones, and those of the configuration's
//! folder, which take the place of shipped ones of the same name.

pub(super) mod tls;

use super::credential::errand;
use super::secrets::Secrets;
use crate::launcher::{Broker, check_owner};
use shiftboss_provider::description::{Auth, Provider};
use shiftboss_provider::load::{BYTES_MAX, load};
use shiftboss_provider::shipped;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tls::Tls;

/// All descriptions, also those that cannot be used.
#[derive(Debug)]
pub(super) struct Providers {
    known: BTreeMap<String, Result<Arc<Provider>, String>>,
    pub(super) secrets: Secrets,
    /// Who is believed to be a provider.
    pub(super) tls: Tls,
    /// Where it is remembered what was sent; `None`: nowhere.
    pub(super) rates_dir: Option<PathBuf>,
    /// This boot, see [`super::rates`].
    pub(super) boot: [u8; 64],
    /// Who runs commands that print tokens, where there are any.
    pub(super) broker: Option<Broker>,
    /// Their numbers there, by the names of their providers.
    pub(super) commands: BTreeMap<String, u32>,
}

impl Providers {
    /// Reads all of them. One that is wrong is kept with the reason: the jobs of the others run.
    ///
    /// # Errors
    /// A sentence: the folder cannot be read.
    pub(super) fn read(
        folder: Option<&Path>,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let mut texts: BTreeMap<String, (String, Result<String, String>)> = BTreeMap::new();
        for (name, text) in shipped::ALL {
            let file = format!("{name}.toml (shipped)");
            texts.insert((*name).to_owned(), (file, Ok((*text).to_owned())));
        }
        if let Some(folder) = folder {
            read_folder(folder, &mut texts)?;
        }
        let mut known = BTreeMap::new();
        let mut names = Vec::new();
        let mut tls = Tls::of_host();
        for (name, (file, text)) in texts {
            let provider = text.and_then(|text| {
                load(&file, &name, &text).map_err(|problems| {
                    let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
                    problems.join("; ")
                })
            });
            let provider = provider.and_then(|one| tls.read(&one).map(|()| one));
            let provider = provider.and_then(|one| match &one.auth {
                // What it says is run with this user's rights.
                Auth::Command(_) => check_owner(Path::new(&file))
                    .map(|()| one)
                    .map_err(|why| format!("it names a command to run, and {why}")),
                _ => Ok(one),
            });
            if let Ok(provider) = &provider {
                names.extend(provider.secrets());
            }
            known.insert(name, provider.map(Arc::new));
        }
        names.sort();
        names.dedup();
        Ok(Self {
            known,
            secrets: Secrets::read(&names, variable),
            tls,
            rates_dir: None,
            boot: super::rates::boot_id(),
            broker: None,
            commands: BTreeMap::new(),
        })
    }

    /// Starts the broker, where a provider that can be used has a command. Before the seal.
    ///
    /// # Errors
    /// A sentence: the kernel refuses it.
    pub(super) fn start_broker(&mut self) -> Result<(), String> {
        let mut errands = Vec::new();
        for (name, provider) in &self.known {
            let Ok(provider) = provider else { continue };
            let Auth::Command(command) = &provider.auth else { continue };
            if self.secrets.lack(&provider.secrets()).is_some() {
                continue;
            }
            let number = u32::try_from(errands.len()).map_err(|_| "too many commands")?;
            errands.push(errand(command, &self.secrets)?);
            self.commands.insert(name.clone(), number);
        }
        if !errands.is_empty() {
            let started = Broker::start(errands).map_err(|error| {
                format!("cannot start the process that runs commands of providers: {error}")
            });
            self.broker = Some(started?);
        }
        Ok(())
    }

    /// The provider of this name, whether its secrets are there or not.
    ///
    /// # Errors
    /// A sentence: there is none, or its description is wrong.
    pub(super) fn get(&self, name: &str) -> Result<&Arc<Provider>, String> {
        let names = || self.known.keys().cloned().collect::<Vec<_>>().join(", ");
        match self.known.get(name) {
            Some(Ok(provider)) => Ok(provider),
            Some(Err(why)) => Err(format!("the description of provider {name} is wrong: {why}")),
            None => Err(format!("no provider has this name; there are: {}", names())),
        }
    }

    /// For people: which can be used.
    pub(super) fn told(&self) -> Vec<String> {
        let mut told = Vec::new();
        for (name, provider) in &self.known {
            match provider {
                Ok(provider) if self.secrets.lack(&provider.secrets()).is_none() => {
                    told.push(name.clone());
                }
                Ok(_) => {}
                Err(why) => told.push(format!("not {name} ({why})")),
            }
        }
        told
    }
}

fn read_folder(
    folder: &Path,
    texts: &mut BTreeMap<String, (String, Result<String, String>)>,
) -> Result<(), String> {
    let told = |error: std::io::Error| {
        format!("cannot read the providers' folder {}: {error}", folder.display())
    };
    for entry in std::fs::read_dir(folder).map_err(told)? {
        let path = entry.map_err(told)?.path();
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        if path.extension().is_none_or(|ending| ending != "toml") || name.is_empty() {
            continue;
        }
        let text = std::fs::metadata(&path)
            .and_then(|facts| {
                if facts.len() > BYTES_MAX as u64 {
                    return Err(std::io::Error::other(format!("larger than {BYTES_MAX} bytes")));
                }
                std::fs::read_to_string(&path)
            })
            .map_err(|error| format!("cannot read {}: {error}", path.display()));
        texts.insert(name.to_owned(), (path.display().to_string(), text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_description_keeps_the_others_usable() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("mine.toml"), "name = 5").expect("written");
        std::fs::write(folder.path().join("note.txt"), "no description").expect("written");
        let variable = |name: &str| (name == "FAL_KEY").then(|| "secret".to_owned());
        let providers = Providers::read(Some(folder.path()), &variable).expect("read");
        let told = providers.told().join(", ");
        assert!(told.starts_with("fal, not mine ("), "{told}");
        let why = providers.get("mine").expect_err("wrong");
        assert!(why.contains("mine.toml:1: name: invalid type"), "{why}");
        let why = providers.get("other").expect_err("absent");
        assert!(why.contains("there are: bria, fal, gemini, generic"), "{why}");
        Providers::read(Some(Path::new("/nowhere")), &variable).expect_err("no folder");
    }
}
