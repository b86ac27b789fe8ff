//! The header by which a proxy introduces a client: it is taken off, and the connection is the client's from then on.

use sol_engine::ConnectionId;

use super::Core;
use super::contain::Step;
use super::filtering::NO_COMMON_NAME;
use crate::backend::Reading;
use crate::observer::{Notice, Observer};
use crate::peer::PeerAddr;
use crate::proxy::Header;

impl<O: Observer> Core<O> {
    /// Takes bytes of a connection that owes the header of its proxy; what lies behind it begins the client's own.
    pub(super) fn take_introduction(&mut self, id: ConnectionId, bytes: &mut [u8]) -> Reading {
        let Some(conn) = self.conns.get_mut(id) else {
            return Reading::Pause;
        };
        let listener = self.config.listeners.get(usize::from(conn.source().listener.0));
        let Some(rules) = listener.and_then(|listener| listener.proxy.as_ref()) else {
            return Reading::Pause;
        };
        let Some(proxy) = conn.filter.as_mut().and_then(|filter| filter.proxy()) else {
            return Reading::Pause;
        };
        self.watch.set(Step::Decode);
        let received = proxy.receive(bytes, rules.version);
        self.watch.set(Step::Transport);
        let (header, used) = match received {
            Ok(None) => {
                self.charge_filter(id);
                return self.reading(id);
            }
            Ok(Some(found)) => found,
            Err(fault) => return self.refuse_introduction(id, &fault.to_string()),
        };
        conn.set_peer(
            header
                .client
                .map_or_else(|| conn.source().peer.without_client(), PeerAddr::brought),
        );
        if rules.requires_tls && !header.is_encrypted {
            return self.refuse_introduction(id, "it has not come to its proxy by TLS");
        }
        let source = conn.source();
        // While it owes its introduction it is not counted, so that nobody leaves who has not entered.
        if !self.enter(source) {
            self.lose(id);
            return Reading::Pause;
        }
        let is_filtered = self.introduce(id, header);
        if self.conns.get(id).is_none_or(|conn| conn.ended) {
            return Reading::Pause;
        }
        match bytes.get_mut(used..) {
            Some(rest) if is_filtered && !rest.is_empty() => self.take_filtered(id, rest),
            Some(rest) if !rest.is_empty() => self.take_plain(id, rest),
            _ => self.reading(id),
        }
    }

    /// Puts what a header says in force. `true`: TLS or WebSocket have to be agreed on yet.
    fn introduce(&mut self, id: ConnectionId, header: Header) -> bool {
        let Some(conn) = self.conns.get_mut(id) else {
            return false;
        };
        let source = conn.source();
        let Some(listener) = self.config.listeners.get(usize::from(source.listener.0)) else {
            return false;
        };
        let filter = conn.filter.as_mut();
        let is_filtered = filter.is_some_and(|filter| filter.introduce(header.common_name.clone(), listener));
        let by_proxy = listener.proxies_name_clients();
        self.charge_filter(id);
        if self.conns.get(id).is_none_or(|conn| conn.ended) {
            // What it holds was one too many, and the engine must not hear of it any more.
            return false;
        }
        if is_filtered {
            return true;
        }
        if let Some(conn) = self.conns.get_mut(id) {
            conn.filter = None;
        }
        let name = by_proxy.then(|| header.common_name.ok_or_else(|| NO_COMMON_NAME.to_owned()));
        self.let_connect(id, source, name);
        false
    }

    fn refuse_introduction(&mut self, id: ConnectionId, why: &str) -> Reading {
        self.counters.proxy_refused += 1;
        if let Some(conn) = self.conns.get(id) {
            let source = conn.source();
            self.observer.notice(Notice::ProxyFailed { source, why });
        }
        // Whatever would be answered is in no language that is agreed on.
        self.lose(id);
        Reading::Pause
    }
}
