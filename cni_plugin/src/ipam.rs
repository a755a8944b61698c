//! Addresses of a node, one file each: its name is the address, its text the owner.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use crate::spec::{Error, Lease, Result, code};

/// How many addresses of a range are ever tried: an IPv6 range has more than anybody counts.
const MOST: u128 = 65_536;

pub struct Ipam {
    dir: PathBuf,
    _lock: File,
}

impl Ipam {
    /// Holds the directory's lock for as long as it lives.
    pub fn open(dir: &Path) -> Result<Self> {
        let fail = |e: std::io::Error| {
            Error::new(code::NO_ADDRESS, format!("ipam.dataDir {}: {e}", dir.display()))
        };
        fs::create_dir_all(dir).map_err(fail)?;
        let lock = File::create(dir.join("lock")).map_err(fail)?;
        lock.lock().map_err(fail)?;
        Ok(Self { dir: dir.to_owned(), _lock: lock })
    }

    /// One address of each range; those that the owner has already are given again.
    pub fn lease(&self, owner: &str, ranges: &[String]) -> Result<Vec<Lease>> {
        ranges.iter().map(|range| self.lease_in(owner, range)).collect()
    }

    pub fn release(&self, owner: &str) {
        for (path, other) in self.taken() {
            if other == owner {
                let _ = fs::remove_file(path);
            }
        }
    }

    /// Every owner that holds an address.
    pub fn owners(&self) -> Vec<String> {
        self.taken().into_iter().map(|(_, owner)| owner).collect()
    }

    fn lease_in(&self, owner: &str, range: &str) -> Result<Lease> {
        let (base, size) = parse_range(range)?;
        let gateway = offset(base, 1);
        for (path, other) in self.taken() {
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
            if let Ok(address) = name.parse::<IpAddr>()
                && other == owner
                && address.is_ipv4() == base.is_ipv4()
            {
                return Ok(Lease { address, gateway });
            }
        }
        // The first is the network's, the second the gateway's, the last of IPv4 is broadcast.
        let end = size.min(MOST) - u128::from(base.is_ipv4() && size <= MOST);
        for number in 2..end {
            let address = offset(base, number);
            let file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(self.dir.join(address.to_string()));
            match file {
                Ok(mut file) => {
                    file.write_all(owner.as_bytes())
                        .map_err(|e| Error::new(code::NO_ADDRESS, format!("{address}: {e}")))?;
                    return Ok(Lease { address, gateway });
                }
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Error::new(code::NO_ADDRESS, format!("{address}: {e}"))),
            }
        }
        Err(Error::new(
            code::NO_ADDRESS,
            format!("ipam.ranges: no address is free in {range}; remove pods or add a range"),
        ))
    }

    fn taken(&self) -> Vec<(PathBuf, String)> {
        let Ok(files) = fs::read_dir(&self.dir) else { return Vec::new() };
        files
            .flatten()
            .filter(|f| f.file_name() != "lock")
            .filter_map(|f| Some((f.path(), fs::read_to_string(f.path()).ok()?)))
            .collect()
    }
}

fn parse_range(range: &str) -> Result<(IpAddr, u128)> {
    let bad = || Error::new(code::BAD_CONFIG, format!("ipam.ranges: {range:?} is not a CIDR"));
    let (address, length) = range.split_once('/').ok_or_else(bad)?;
    let base: IpAddr = address.parse().map_err(|_| bad())?;
    let length: u32 = length.parse().map_err(|_| bad())?;
    let bits = if base.is_ipv4() { 32 } else { 128 };
    if length > bits - 2 {
        return Err(bad());
    }
    Ok((base, 1u128.checked_shl(bits - length).unwrap_or(u128::MAX)))
}

fn offset(base: IpAddr, number: u128) -> IpAddr {
    match base {
        IpAddr::V4(v4) => {
            let number = u32::try_from(number).unwrap_or(0);
            Ipv4Addr::from(u32::from(v4).wrapping_add(number)).into()
        }
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6).wrapping_add(number)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipam(name: &str) -> (PathBuf, Ipam) {
        let dir = std::env::temp_dir().join(format!("sg-ipam-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let made = Ipam::open(&dir).expect("open");
        (dir, made)
    }

    #[test]
    fn the_same_owner_gets_the_same_addresses() {
        let (dir, ipam) = ipam("same");
        let ranges = ["10.1.0.0/24".to_owned(), "fd00::/64".to_owned()];
        let first = ipam.lease("a", &ranges).expect("lease");
        assert_eq!(first[0].address.to_string(), "10.1.0.2");
        assert_eq!(first[1].address.to_string(), "fd00::2");
        assert_eq!(ipam.lease("a", &ranges).expect("again"), first);
        assert_ne!(ipam.lease("b", &ranges).expect("other"), first);
        ipam.release("a");
        assert_eq!(ipam.lease("c", &ranges).expect("freed"), first);
        fs::remove_dir_all(dir).expect("clean");
    }

    #[test]
    fn a_full_range_says_so() {
        let (dir, ipam) = ipam("full");
        let ranges = ["10.1.0.0/30".to_owned()];
        ipam.lease("a", &ranges).expect("the only one");
        let error = ipam.lease("b", &ranges).expect_err("full");
        assert_eq!(error.code, code::NO_ADDRESS);
        assert!(error.msg.contains("10.1.0.0/30"));
        fs::remove_dir_all(dir).expect("clean");
    }
}
