//! Which rank this process is, as its launcher says: torchrun's variables, or Slurm's.

use crate::{Error, Result};

/// The place of one process among those of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// 0-based number of this process.
    pub rank: usize,
    /// How many processes there are.
    pub size: usize,
    /// 0-based number among those of this machine.
    pub local_rank: usize,
    /// Where they meet.
    pub address: String,
    /// The port there.
    pub port: u16,
    /// Whether the launcher itself listens there, as torchrun does; else rank 0 does.
    pub served: bool,
    /// How often the launcher has started all of them anew.
    pub attempt: usize,
}

/// What torchrun, or whoever starts ranks by hand, sets.
const VARIABLES: [&str; 5] = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"];

/// Ports that Slurm's jobs meet at, by their number.
const FIRST_PORT: u64 = 20_000;
const PORTS: u64 = 20_000;

impl Place {
    /// The place that this process's environment gives it; `None` where it is alone. RANK, WORLD_SIZE,
    /// LOCAL_RANK, MASTER_ADDR and MASTER_PORT are torchrun's; without any of the first three, the step of
    /// `srun` that this process is a task of.
    ///
    /// # Errors
    /// A variable that is missing, or is no number where one has to be.
    pub fn of_environment() -> Result<Option<Place>> {
        Place::of(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn of(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Place>> {
        // MASTER_ADDR and MASTER_PORT alone are how a Slurm script says where its tasks meet.
        let place = match VARIABLES[..3].iter().any(|name| variable(name).is_some()) {
            true => of_torchrun(&variable)?,
            false => match of_slurm(&variable)? {
                Some(place) => place,
                None => return Ok(None),
            },
        };
        if place.size == 0 || place.rank >= place.size {
            return Err(Error::invalid(format!(
                "RANK={} of WORLD_SIZE={}: ranks count from 0 to WORLD_SIZE - 1",
                place.rank, place.size
            )));
        }
        Ok((place.size > 1).then_some(place))
    }
}

fn of_torchrun(variable: &impl Fn(&str) -> Option<String>) -> Result<Place> {
    let text = |name: &str| {
        variable(name).ok_or_else(|| {
            let there: Vec<&str> = VARIABLES.into_iter().filter(|name| variable(name).is_some()).collect();
            Error::invalid(format!(
                "{name} is not set, though {} {}: set {}, start with torchrun, or unset them all",
                there.join(", "),
                if there.len() == 1 { "is" } else { "are" },
                VARIABLES.join(", ")
            ))
        })
    };
    let number = |name: &str| {
        let text = text(name)?;
        text.trim().parse::<usize>().map_err(|_| Error::invalid(format!("{name}={text}: is no number")))
    };
    Ok(Place {
        rank: number("RANK")?,
        size: number("WORLD_SIZE")?,
        local_rank: number("LOCAL_RANK")?,
        address: text("MASTER_ADDR")?,
        port: port(&text("MASTER_PORT")?)?,
        served: variable("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|value| value == "True"),
        attempt: variable("TORCHELASTIC_RESTART_COUNT").and_then(|n| n.parse().ok()).unwrap_or_default(),
    })
}

fn port(text: &str) -> Result<u16> {
    match text.trim().parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(Error::invalid(format!("MASTER_PORT={text}: is no port; there are 1 to 65535"))),
    }
}

/// The task of a step. Slurm sets the number of tasks of the whole job in the job's script too, where there
/// is one process: only what `srun` sets of its step counts.
fn of_slurm(variable: &impl Fn(&str) -> Option<String>) -> Result<Option<Place>> {
    let Some(tasks) = variable("SLURM_STEP_NUM_TASKS") else { return Ok(None) };
    let number = |name: &str, text: Option<String>| {
        let text = text.ok_or_else(|| {
            Error::invalid(format!(
                "{name} is not set, though SLURM_STEP_NUM_TASKS is: start it with srun, or set {}",
                VARIABLES.join(", ")
            ))
        })?;
        text.trim().parse::<usize>().map_err(|_| Error::invalid(format!("{name}={text}: is no number")))
    };
    let size = number("SLURM_STEP_NUM_TASKS", Some(tasks))?;
    if size <= 1 {
        return Ok(None);
    }
    let address = variable("MASTER_ADDR").or_else(|| first_host(&variable("SLURM_STEP_NODELIST")?));
    let address = address.ok_or_else(|| {
        Error::invalid("SLURM_STEP_NODELIST names no machine: set MASTER_ADDR to that of rank 0")
    })?;
    let count = |name: &str| variable(name).and_then(|n| n.parse::<u64>().ok()).unwrap_or_default();
    let port = match variable("MASTER_PORT") {
        Some(text) => port(&text)?,
        // Steps of one job may run side by side on one machine.
        None => {
            let number = count("SLURM_JOB_ID").wrapping_add(101 * count("SLURM_STEP_ID"));
            (FIRST_PORT + number % PORTS) as u16
        }
    };
    Ok(Some(Place {
        rank: number("SLURM_PROCID", variable("SLURM_PROCID"))?,
        size,
        local_rank: number("SLURM_LOCALID", variable("SLURM_LOCALID"))?,
        address,
        port,
        served: false,
        attempt: count("SLURM_RESTART_COUNT") as usize,
    }))
}

/// The first machine of a list as Slurm writes it: `node[03-05,9]-ib,other` is `node03-ib` and others.
fn first_host(list: &str) -> Option<String> {
    let (mut name, mut inside) = (String::new(), false);
    let mut letters = list.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '[' => inside = true,
            ']' => inside = false,
            ',' if !inside => break,
            // What follows the first of several stands behind the bracket.
            '-' | ',' if inside => {
                letters.by_ref().find(|&letter| letter == ']')?;
                inside = false;
            }
            letter => name.push(letter),
        }
    }
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Option<Place>> {
        Place::of(|name| variables.iter().find(|(there, _)| *there == name).map(|(_, v)| v.to_string()))
    }

    const TORCHRUN: [(&str, &str); 5] = [
        ("RANK", "5"),
        ("WORLD_SIZE", "8"),
        ("LOCAL_RANK", "1"),
        ("MASTER_ADDR", "10.0.0.7"),
        ("MASTER_PORT", "29500"),
    ];

    #[test]
    fn the_variables_of_torchrun() {
        assert_eq!(of(&[("HOME", "/root")]).unwrap(), None);
        let place = of(&TORCHRUN).unwrap().unwrap();
        let (rank, size, local_rank, port) = (place.rank, place.size, place.local_rank, place.port);
        assert_eq!((rank, size, local_rank, port), (5, 8, 1, 29500));
        assert_eq!((place.address.as_str(), place.served, place.attempt), ("10.0.0.7", false, 0));
        let mut elastic = TORCHRUN.to_vec();
        elastic.extend([("TORCHELASTIC_USE_AGENT_STORE", "True"), ("TORCHELASTIC_RESTART_COUNT", "2")]);
        let place = of(&elastic).unwrap().unwrap();
        assert!(place.served && place.attempt == 2);
        let alone: Vec<_> = TORCHRUN
            .map(|(name, value)| match name {
                "RANK" => (name, "0"),
                "WORLD_SIZE" => (name, "1"),
                _ => (name, value),
            })
            .to_vec();
        assert_eq!(of(&alone).unwrap(), None, "one rank is alone");
    }

    #[test]
    fn a_missing_or_wrong_variable_is_named() {
        for missing in VARIABLES {
            let others: Vec<_> = TORCHRUN.into_iter().filter(|(name, _)| *name != missing).collect();
            let error = of(&others).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{missing} is not set")), "{error}");
        }
        for (name, value) in [
            ("RANK", "8"),
            ("RANK", "x"),
            ("WORLD_SIZE", "-1"),
            ("MASTER_PORT", "0"),
            ("MASTER_PORT", "70000"),
        ] {
            let with = TORCHRUN.map(|(there, old)| if there == name { (there, value) } else { (there, old) });
            let error = of(&with).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name}={value}")), "{error}");
        }
    }

    #[test]
    fn the_variables_of_srun() {
        let mut step = vec![
            ("SLURM_JOB_ID", "123456"),
            ("SLURM_STEP_ID", "0"),
            ("SLURM_STEP_NUM_TASKS", "16"),
            ("SLURM_STEP_NODELIST", "gpu[07-08]"),
            ("SLURM_PROCID", "9"),
            ("SLURM_LOCALID", "1"),
        ];
        let place = of(&step).unwrap().unwrap();
        assert_eq!((place.rank, place.size, place.local_rank), (9, 16, 1));
        assert_eq!((place.address.as_str(), place.port, place.served), ("gpu07", 23456, false));
        step.push(("MASTER_PORT", "4321"));
        assert_eq!(of(&step).unwrap().unwrap().port, 4321);
        let error = of(&step[..4]).unwrap_err().to_string();
        assert!(error.starts_with("SLURM_PROCID is not set"), "{error}");
        // The script of a job that has many tasks is one process.
        assert_eq!(of(&[("SLURM_NTASKS", "16"), ("SLURM_PROCID", "0")]).unwrap(), None);
    }

    #[test]
    fn the_first_machine_of_a_list() {
        for (list, first) in [
            ("node", "node"),
            ("node,other", "node"),
            ("node[03-05,9]", "node03"),
            ("node[3,7],x", "node3"),
            ("node[12]", "node12"),
            ("rack[1-2]-gpu,x", "rack1-gpu"),
        ] {
            assert_eq!(first_host(list).as_deref(), Some(first), "{list}");
        }
        assert_eq!(first_host(""), None);
    }
}
