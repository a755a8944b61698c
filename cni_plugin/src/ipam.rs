//! Addresses of a node, one file each: its name is the address, its text the owner.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, code};
use crate::spec::Lease;

/// How many addresses of a range are ever tried: an IPv6 range has more than anybody counts.
const MOST: u128 = 65_536;

pub struct Ipam {
    dir: PathBuf,
    _lock: File,
}

impl Ipam {
    /// Holds the directory's lock for as long as it lives.
    pub fn open(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).map_err(|e| fail(dir, &e))?;
        let lock = File::create(dir.join("lock")).map_err(|e| fail(dir, &e))?;
        lock.lock().map_err(|e| fail(dir, &e))?;
        Ok(Self { dir: dir.to_owned(), _lock: lock })
    }

    /// One address of each range; those that the owner has already are given again.
    pub fn lease(&self, owner: &str, ranges: &[String]) -> Result<Vec<Lease>> {
        let parsed: Vec<Range> = ranges.iter().map(|r| Range::parse(r)).collect::<Result<_>>()?;
        let of_ipv4 = parsed.iter().filter(|r| r.base.is_ipv4()).count();
        if parsed.is_empty() || of_ipv4 > 1 || parsed.len() - of_ipv4 > 1 {
            let why = "ipam.ranges: give one range of IPv4, one of IPv6, or one of each";
            return Err(Error::new(code::BAD_CONFIG, why));
        }
        parsed.iter().map(|range| self.lease_in(owner, range)).collect()
    }

    pub fn release(&self, owner: &str) -> Result<()> {
        for (address, other) in self.taken()? {
            if other == owner {
                let path = self.dir.join(address.to_string());
                fs::remove_file(&path).map_err(|e| fail(&path, &e))?;
            }
        }
        Ok(())
    }

    /// The addresses of an owner.
    pub fn held(&self, owner: &str) -> Result<Vec<IpAddr>> {
        let taken = self.taken()?.into_iter();
        Ok(taken.filter(|(_, other)| other == owner).map(|(address, _)| address).collect())
    }

    /// Every owner that holds an address.
    pub fn owners(&self) -> Result<BTreeSet<String>> {
        Ok(self.taken()?.into_values().collect())
    }

    fn lease_in(&self, owner: &str, range: &Range) -> Result<Lease> {
        let taken = self.taken()?;
        let gateway = range.address(1);
        let own = |(address, other): &(&IpAddr, &String)| *other == owner && range.has(**address);
        if let Some((&address, _)) = taken.iter().find(own) {
            return Ok(Lease { address, gateway });
        }
        let free = range.usable().map(|n| range.address(n)).find(|a| !taken.contains_key(a));
        let address = free.ok_or_else(|| {
            let text = &range.text;
            let why = format!(
                "ipam.ranges: no address is free in {text}; remove pods or widen the range"
            );
            Error::new(code::NO_ADDRESS, why)
        })?;
        // Written aside and renamed: a crash leaves no file without its owner.
        let (path, new) = (self.dir.join(address.to_string()), self.dir.join("new"));
        fs::write(&new, owner)
            .and_then(|()| fs::rename(&new, &path))
            .map_err(|e| fail(&path, &e))?;
        Ok(Lease { address, gateway })
    }

    fn taken(&self) -> Result<BTreeMap<IpAddr, String>> {
        let mut taken = BTreeMap::new();
        for file in fs::read_dir(&self.dir).map_err(|e| fail(&self.dir, &e))?.flatten() {
            if let Some(address) = file.file_name().to_str().and_then(|n| n.parse().ok()) {
                let path = file.path();
                taken.insert(address, fs::read_to_string(&path).map_err(|e| fail(&path, &e))?);
            }
        }
        Ok(taken)
    }
}

fn fail(path: &Path, why: &std::io::Error) -> Error {
    Error::new(code::IO, format!("ipam.dataDir: {}: {why}", path.display()))
}

/// A CIDR prefix; its first address is the gateway's.
struct Range {
    text: String,
    base: IpAddr,
    /// How many addresses it has, at most `MOST`.
    size: u128,
    last_is_broadcast: bool,
}

impl Range {
    fn parse(text: &str) -> Result<Self> {
        let bad = |why: &str| Error::new(code::BAD_CONFIG, format!("ipam.ranges: {text:?}: {why}"));
        let (address, length) = text.split_once('/').ok_or_else(|| bad("not a CIDR prefix"))?;
        let base: IpAddr = address.parse().map_err(|_| bad("not a CIDR prefix"))?;
        let length: u32 = length.parse().map_err(|_| bad("not a CIDR prefix"))?;
        let bits = if base.is_ipv4() { 32 } else { 128 };
        if length == 0 || length > bits - 2 {
            return Err(bad("its length leaves no address for a gateway and a pod"));
        }
        let number = match base {
            IpAddr::V4(v4) => u128::from(u32::from(v4)),
            IpAddr::V6(v6) => u128::from(v6),
        };
        let whole = 1u128 << (bits - length);
        if number % whole != 0 {
            return Err(bad("has bits set beyond its length"));
        }
        let last_is_broadcast = base.is_ipv4() && whole <= MOST;
        Ok(Self { text: text.to_owned(), base, size: whole.min(MOST), last_is_broadcast })
    }

    fn usable(&self) -> std::ops::Range<u128> {
        2..self.size - u128::from(self.last_is_broadcast)
    }

    fn address(&self, number: u128) -> IpAddr {
        match self.base {
            IpAddr::V4(v4) => {
                let number = u32::try_from(number).expect("below MOST");
                Ipv4Addr::from(u32::from(v4) + number).into()
            }
            IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) + number).into(),
        }
    }

    fn has(&self, address: IpAddr) -> bool {
        match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(v4)) => {
                u32::from(v4).checked_sub(base.into()).is_some_and(|n| u128::from(n) < self.size)
            }
            (IpAddr::V6(base), IpAddr::V6(v6)) => {
                u128::from(v6).checked_sub(base.into()).is_some_and(|n| n < self.size)
            }
            _ => false,
        }
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
        ipam.release("a").expect("release");
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

    #[test]
    fn bad_ranges_are_named() {
        let (dir, ipam) = ipam("bad");
        for range in ["10.1.0.0", "10.1.0.5/24", "10.1.0.0/31", "fd00::/129", "x/24"] {
            let error = ipam.lease("a", &[range.to_owned()]).expect_err(range);
            assert_eq!(error.code, code::BAD_CONFIG);
            assert!(error.msg.contains(range), "{}", error.msg);
        }
        let twice = ["10.1.0.0/24".to_owned(), "10.2.0.0/24".to_owned()];
        assert_eq!(ipam.lease("a", &twice).expect_err("two of IPv4").code, code::BAD_CONFIG);
        fs::remove_dir_all(dir).expect("clean");
    }
}
