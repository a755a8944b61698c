//! What an outbound connection brings while nobody knows yet who the chosen backend is. Envoy would
//! not show it again: `tcp_proxy` has begun already, and gets what is buffered as soon as it may.

use sidegate_abi::network::Connection;

/// At most a peer's patience long.
#[derive(Default)]
pub struct Held {
    pub from_client: Vec<u8>,
    pub from_server: Vec<u8>,
    /// The server has closed its half. Of the client's, Envoy keeps account.
    pub ended: bool,
}

impl Held {
    pub fn read(&mut self, envoy: &Connection) {
        envoy.read_buffer(|chunk| self.from_client.extend_from_slice(chunk));
        envoy.replace_read_buffer(b"");
    }

    pub fn write(&mut self, envoy: &Connection, end_stream: bool) {
        envoy.write_buffer(|chunk| self.from_server.extend_from_slice(chunk));
        envoy.replace_write_buffer(b"");
        self.ended |= end_stream;
    }
}
