//! Requests to the kernel by rtnetlink(7), in a network namespace of choice.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, RawFd};

use futures_util::TryStreamExt;
use nix::sched::{CloneFlags, setns};
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags};
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{
    Handle, LinkGetRequest, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};

use crate::error::{Error, Result, code};

pub type Mac = [u8; 6];

/// An interface that is there.
#[derive(Debug)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub mac: Mac,
    /// As ip-link(8) names types; empty for a physical device.
    pub kind: String,
    pub is_up: bool,
    /// Of a veth: the index of its other end, in the namespace where that is.
    pub peer: Option<u32>,
}

impl Link {
    pub const VETH: &'static str = "veth";

    fn of(message: &LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mac: Mac::default(),
            kind: String::new(),
            is_up: message.header.flags.contains(LinkFlags::Up),
            peer: None,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(a) => link.mac = a.as_slice().try_into().unwrap_or_default(),
                LinkAttribute::Link(peer) => link.peer = Some(*peer),
                LinkAttribute::LinkInfo(all) => {
                    let kind = |i: &LinkInfo| match i {
                        LinkInfo::Kind(InfoKind::Veth) => Some(Self::VETH.to_owned()),
                        LinkInfo::Kind(kind) => Some(kind.to_string()),
                        _ => None,
                    };
                    link.kind = all.iter().find_map(kind).unwrap_or_default();
                }
                _ => {}
            }
        }
        link
    }
}

/// One end of a veth pair that is to be made.
pub struct End<'a> {
    pub name: &'a str,
    pub mac: Mac,
}

/// A network namespace and a socket that belongs to it.
pub struct Namespace {
    handle: Handle,
    file: File,
    path: String,
}

impl Namespace {
    /// The namespace that the runtime started us in: the node's.
    pub fn own() -> Result<Self> {
        let path = "/proc/thread-self/ns/net";
        let file = File::open(path).map_err(|e| bad(path, &e))?;
        Ok(Self { handle: connect(path)?, file, path: "the node".to_owned() })
    }

    /// The namespace of a container, as a path.
    pub fn at(path: &str, node: &Self) -> Result<Self> {
        let file = File::open(path)
            .map_err(|e| Error::new(code::UNKNOWN_CONTAINER, format!("CNI_NETNS {path}: {e}")))?;
        setns(&file, CloneFlags::CLONE_NEWNET).map_err(|e| bad(path, &e))?;
        let handle = connect(path);
        setns(&node.file, CloneFlags::CLONE_NEWNET).map_err(|e| bad("the node", &e))?;
        Ok(Self { handle: handle?, file, path: path.to_owned() })
    }

    pub async fn link(&self, name: &str) -> Result<Option<Link>> {
        self.found(self.handle.link().get().match_name(name.to_owned()), name).await
    }

    pub async fn link_at(&self, index: u32) -> Result<Option<Link>> {
        self.found(self.handle.link().get().match_index(index), &index.to_string()).await
    }

    async fn found(&self, request: LinkGetRequest, what: &str) -> Result<Option<Link>> {
        match request.execute().try_next().await {
            Ok(link) => Ok(link.as_ref().map(Link::of)),
            Err(e) if is_absent(&e) => Ok(None),
            Err(e) => Err(self.failed(what, &e)),
        }
    }

    /// Like [`Self::link`], for an interface that must be there.
    pub async fn existing(&self, name: &str) -> Result<Link> {
        let found = self.link(name).await?;
        found.ok_or_else(|| {
            Error::new(code::NETWORK, format!("{}: there is no interface {name}", self.path))
        })
    }

    /// A veth pair in one step, its second end in another namespace; both ends are down.
    pub async fn add_veth(
        &self,
        here: &End<'_>,
        there: &End<'_>,
        other: &Self,
        mtu: Option<u32>,
    ) -> Result<()> {
        let fd: RawFd = other.file.as_raw_fd();
        let mut peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(there.name)
            .address(there.mac.to_vec())
            .setns_by_fd(fd);
        let mut link = LinkVeth::new(here.name, there.name).address(here.mac.to_vec());
        if let Some(mtu) = mtu {
            peer = peer.mtu(mtu);
            link = link.mtu(mtu);
        }
        let link = link.set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build()))).build();
        let what = format!("veth {} and {} in {}", here.name, there.name, other.path);
        self.handle.link().add(link).execute().await.map_err(|e| self.failed(&what, &e))
    }

    pub async fn up(&self, index: u32) -> Result<()> {
        let link = LinkMessageBuilder::<LinkUnspec>::new().index(index).up().build();
        let done = self.handle.link().set(link).execute().await;
        done.map_err(|e| self.failed(&format!("interface {index} up"), &e))
    }

    /// What is gone already is no error.
    pub async fn down(&self, name: &str) -> Result<()> {
        let Some(link) = self.link(name).await? else { return Ok(()) };
        let change = LinkMessageBuilder::<LinkUnspec>::new().index(link.index).down().build();
        match self.handle.link().set(change).execute().await {
            Err(e) if !is_absent(&e) => Err(self.failed(&format!("{name} down"), &e)),
            _ => Ok(()),
        }
    }

    /// What is gone already is no error.
    pub async fn delete(&self, name: &str) -> Result<()> {
        let Some(link) = self.link(name).await? else { return Ok(()) };
        match self.handle.link().del(link.index).execute().await {
            Err(e) if !is_absent(&e) => Err(self.failed(&format!("deleting {name}"), &e)),
            _ => Ok(()),
        }
    }

    /// The address alone, without a subnet, and without duplicate address detection: it is ours.
    pub async fn add_address(&self, index: u32, address: IpAddr) -> Result<()> {
        let mut request = self.handle.address().add(index, address, bits(address)).replace();
        if address.is_ipv6() {
            request.message_mut().header.flags.insert(AddressHeaderFlags::Nodad);
        }
        request.execute().await.map_err(|e| self.failed(&format!("address {address}"), &e))
    }

    pub async fn addresses(&self, index: u32) -> Result<Vec<IpAddr>> {
        let request = self.handle.address().get().set_link_index_filter(index);
        let found: Vec<_> =
            request.execute().try_collect().await.map_err(|e| self.failed("addresses", &e))?;
        let attributes = found.into_iter().flat_map(|message| message.attributes);
        Ok(attributes
            .filter_map(|a| if let AddressAttribute::Address(ip) = a { Some(ip) } else { None })
            .collect())
    }

    /// A permanent entry: no ARP and no neighbour discovery ever passes the pair.
    pub async fn add_neighbour(&self, index: u32, address: IpAddr, mac: Mac) -> Result<()> {
        let request = self.handle.neighbours().add(index, address).link_layer_address(&mac);
        let done = request.replace().execute().await;
        done.map_err(|e| self.failed(&format!("neighbour {address}"), &e))
    }

    pub async fn add_host_route(&self, index: u32, address: IpAddr) -> Result<()> {
        let route = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(address, bits(address))
            .map_err(|e| self.failed("route", &e))?
            .output_interface(index)
            .scope(if address.is_ipv4() { RouteScope::Link } else { RouteScope::Universe })
            .build();
        let done = self.handle.route().add(route).replace().execute().await;
        done.map_err(|e| self.failed(&format!("route to {address}"), &e))
    }

    pub async fn add_default_route(&self, index: u32, gateway: IpAddr) -> Result<()> {
        let all: IpAddr = match gateway {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let route = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(all, 0)
            .and_then(|route| route.gateway(gateway))
            .map_err(|e| self.failed("route", &e))?
            .output_interface(index)
            .onlink()
            .build();
        let done = self.handle.route().add(route).replace().execute().await;
        done.map_err(|e| self.failed(&format!("default route via {gateway}"), &e))
    }

    fn failed(&self, what: &str, why: &impl std::fmt::Display) -> Error {
        Error::new(code::NETWORK, format!("{}: {what}: {why}", self.path))
    }
}

pub fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn connect(path: &str) -> Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(|e| bad(path, &e))?;
    tokio::spawn(connection);
    Ok(handle)
}

fn bad(path: &str, why: &impl std::fmt::Display) -> Error {
    Error::new(code::NETWORK, format!("{path}: {why}"))
}

fn is_absent(error: &rtnetlink::Error) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(e)
        if e.raw_code() == -(nix::errno::Errno::ENODEV as i32))
}
