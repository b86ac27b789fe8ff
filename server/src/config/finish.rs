//! What holds between the lines of a file: which listeners there are, and what each of them is told.

use super::draft::{Draft, PORT, Part, Security};
use super::place::Place;
use super::tls_rows::old_version;
use super::tokens::{HttpDraft, JwtDraft};
use super::{Address, Auth, Authenticator, CertificateName, Diagnostic, Dialect, Listener, Protocol, Proxy};
use std::path::Path;
use std::sync::Arc;

const LOOPBACK: &str = "127.0.0.1";

impl Draft {
    pub(crate) fn finish(&mut self, path: &Path, errors: &mut Vec<Diagnostic>) {
        match self.config.dialect {
            Dialect::Sol => self.finish_sol(errors),
            Dialect::Listener => self.finish_listeners(path, errors),
        }
        self.config.persistence.settle();
        self.warn_of_files();
        self.warn_of_auth(path);
    }

    fn finish_sol(&mut self, errors: &mut Vec<Diagnostic>) {
        let (address, place) = match (self.sol_unix.take(), self.sol_host.take()) {
            (Some((path, place)), _) => (Address::Unix(path), place),
            (None, host) => {
                let (host, host_place) = host.unzip();
                let (port, port_place) = self.sol_port.take().unzip();
                let place = host_place.or(port_place).unwrap_or_else(Place::nowhere);
                let host = host.unwrap_or_else(|| LOOPBACK.to_owned());
                (Address::of_sol(host, port.unwrap_or(PORT)), place)
            }
        };
        let mut part = self.take_default();
        (part.listener.address, part.listener.place) = (address, place);
        self.sol_tls(&mut part, errors);
        let listener = self.settle(part, true, errors);
        self.config.listeners = vec![listener];
    }

    /// The protocols count only with TLS; and only those that are spoken.
    fn sol_tls(&mut self, part: &mut Part, errors: &mut Vec<Diagnostic>) {
        let Some(protocols) = self.sol_protocols.take() else {
            return;
        };
        let say = |text: String| Diagnostic::at(&protocols.place.path, protocols.place.line, protocols.column, text);
        if part.tls == Default::default() {
            let text = "tls_protocols has no effect without certfile and keyfile";
            return self.config.warnings.push(say(text.to_owned()));
        }
        match &protocols.old {
            Some(old) if protocols.versions.is_empty() => return errors.push(say(old_version(old))),
            Some(old) => self.config.warnings.push(say(old_version(old))),
            None => {}
        }
        part.tls.version_min = protocols.versions.iter().copied().min();
        part.tls.version_max = protocols.versions.iter().copied().max();
    }

    fn finish_listeners(&mut self, path: &Path, errors: &mut Vec<Diagnostic>) {
        if let (Some(_), Some(place)) = (
            self.config.places.of("max_memory"),
            self.config.places.of("memory_limit"),
        ) {
            let text = "`memory_limit` and `max_memory` are two names of one thing";
            errors.push(Diagnostic::at(&place.path, place.line, 1, text));
        }
        let mut default = self.take_default();
        let (port, port_place) = self.port.take().unzip();
        let (host, host_place) = self.bind_address.take().unzip();
        let asked = port.is_some() || host.is_some();
        let local = !asked && self.parts.is_empty();
        let mut parts = std::mem::take(&mut self.parts);
        if asked || local || !self.says_nothing(&default) {
            let topmost = default.listener.places.topmost();
            if let (false, false, Some((name, place))) = (asked, local, topmost) {
                let text = format!(
                    "`{name}` stands above every listener, which makes one of its own at *:{PORT}, as in Mosquitto; put \
                     it below the `listener` that it is for"
                );
                self.config.warnings.push(place.say(text));
            }
            default.listener.place = port_place.or(host_place).unwrap_or_else(Place::nowhere);
            default.listener.address = Address::Tcp {
                host: if local { Some(LOOPBACK.to_owned()) } else { host },
                port: port.unwrap_or(PORT),
            };
            parts.insert(0, default);
        }
        if path.as_os_str().is_empty() && parts.is_empty() {
            return;
        }
        let listeners = parts.into_iter().map(|part| self.settle(part, local, errors));
        self.config.listeners = listeners.collect();
    }

    fn take_default(&mut self) -> Part {
        let address = Address::Tcp { host: None, port: PORT };
        let fresh = Part::new(self.config.dialect, address, Place::nowhere());
        std::mem::replace(&mut self.default, fresh)
    }

    /// Whether nothing was said of the default listener that it would not do anyway.
    fn says_nothing(&self, default: &Part) -> bool {
        let mut said = default.clone();
        if said.security.allow_anonymous == Some(false) {
            said.security.allow_anonymous = None;
        }
        said == self.default
    }

    /// Makes a listener of what was said about it, and about all.
    fn settle(&self, part: Part, open: bool, errors: &mut Vec<Diagnostic>) -> Listener {
        let Part {
            mut listener,
            security,
            tls,
            proxy,
            names,
        } = part;
        listener.certificate_name = names.settle();
        let said = if self.per_listener { &security } else { &self.everywhere };
        let (jwt, http, order) = (said.jwt.clone(), said.http.clone(), said.order.clone());
        listener.auth = self.auth(security, &listener.auth, open);
        if let Err((directive, text)) = settle_authenticators(&mut listener.auth, jwt, http, order) {
            let place = listener
                .places
                .of(directive)
                .or_else(|| self.config.places.of(directive));
            let error = place.unwrap_or(&listener.place).say(format!("`{directive}` {text}"));
            if !errors.contains(&error) {
                errors.push(error);
            }
        }
        if let Some(bytes) = self.headers_bytes_max {
            listener.websockets.headers_bytes_max = bytes;
        }
        match tls.settle() {
            Ok(tls) => listener.tls = tls,
            Err((directive, text)) => {
                errors.push(listener.place_of(directive).say(format!("`{directive}` {text}")));
            }
        }
        let local = listener.address.is_local();
        match (proxy.version, proxy.trusted.is_empty()) {
            (Some(_), true) if !local => {
                let text = "`enable_proxy_protocol` needs proxy_protocol_from, the addresses of the proxies: others could \
                            say to be anywhere";
                errors.push(listener.place_of("enable_proxy_protocol").say(text));
            }
            (Some(version), _) => {
                listener.proxy = Some(Proxy {
                    version,
                    trusted: proxy.trusted,
                    requires_tls: proxy.requires_tls,
                });
            }
            (None, false) => {
                let text = "`proxy_protocol_from` has no effect without enable_proxy_protocol";
                errors.push(listener.place_of("proxy_protocol_from").say(text));
            }
            (None, true) => {}
        }
        errors.extend(contradictions(&listener, proxy.requires_tls));
        listener
    }

    /// What the listener's own lines say, then those that hold everywhere, then the default.
    fn auth(&self, own: Security, known: &Auth, open: bool) -> Auth {
        let shared = if self.per_listener {
            Security::default()
        } else {
            self.everywhere.clone()
        };
        let default = Auth::default();
        Auth {
            allow_anonymous: own.allow_anonymous.or(shared.allow_anonymous).unwrap_or(open),
            password_file: own.password_file.or(shared.password_file),
            acl_file: own.acl_file.or(shared.acl_file),
            use_username_as_clientid: known.use_username_as_clientid,
            clientid_prefixes: self.clientid_prefixes.clone(),
            allow_zero_length_clientid: own
                .allow_zero_length_clientid
                .or(shared.allow_zero_length_clientid)
                .unwrap_or(default.allow_zero_length_clientid),
            auto_id_prefix: own
                .auto_id_prefix
                .or(shared.auto_id_prefix)
                .unwrap_or(default.auto_id_prefix),
            jwt: None,
            http: None,
            order: Vec::new(),
        }
    }

    /// Files for browsers where none can come; files of Mosquitto may have them anywhere.
    fn warn_of_files(&mut self) {
        let listeners = self.config.listeners.iter();
        let unseen = listeners
            .filter(|listener| listener.websockets.http_dir.is_some() && listener.protocol != Protocol::WebSockets);
        let text = "`http_dir` has no effect without `protocol websockets`";
        let said = unseen.map(|listener| listener.place_of("http_dir").say(text));
        self.config.warnings.extend(said);
    }

    /// Whom each listener lets in, where that may not be what was meant.
    fn warn_of_auth(&mut self, path: &Path) {
        let path: Arc<Path> = Arc::from(path);
        let mut warnings = Vec::new();
        for listener in &self.config.listeners {
            let place = |name: &str| {
                let own = listener
                    .places
                    .first(["listener_allow_anonymous"])
                    .filter(|_| name == "allow_anonymous");
                let given = own.map(|(_, place)| place).or_else(|| listener.places.of(name));
                let given = given.or_else(|| self.config.places.of(name));
                given.cloned().unwrap_or_else(|| Place {
                    path: Arc::clone(&path),
                    line: 0,
                })
            };
            let auth = &listener.auth;
            let asked = auth.order.first().map(|authenticator| authenticator.directive());
            let said = match (auth.allow_anonymous, asked, self.config.dialect) {
                (false, None, _) if listener.certificate_name.is_none() => place("allow_anonymous")
                    .say("nobody can connect: anonymous clients are refused and there is no password_file"),
                (true, Some(_), Dialect::Sol) => {
                    place("password_file").say("password_file has no effect: anonymous clients are allowed")
                }
                (true, Some(asked), Dialect::Listener) => {
                    place(asked).say("clients without a user name need no password: anonymous clients are allowed")
                }
                (true, None, _) | (false, _, _) => continue,
            };
            if !warnings.contains(&said) {
                warnings.push(said);
            }
        }
        self.config.warnings.extend(warnings);
    }
}

/// Who is asked about clients, in which order; or the directive that is at fault, and why.
fn settle_authenticators(
    auth: &mut Auth,
    jwt: JwtDraft,
    http: HttpDraft,
    order: Option<Vec<Authenticator>>,
) -> Result<(), (&'static str, String)> {
    auth.jwt = jwt
        .settle()
        .map_err(|name| (name, "has no effect without jwt_key_file".to_owned()))?;
    auth.http = http.settle().map_err(|(name, text)| (name, text.to_owned()))?;
    let is_there = |authenticator: &Authenticator| match authenticator {
        Authenticator::PasswordFile => auth.password_file.is_some(),
        Authenticator::Jwt => auth.jwt.is_some(),
        Authenticator::Http => auth.http.is_some(),
    };
    let there: Vec<_> = Authenticator::ALL.into_iter().filter(is_there).collect();
    let order = order.unwrap_or_else(|| there.clone());
    if order.len() != there.len() || !order.iter().all(is_there) {
        let names: Vec<_> = there.iter().map(ToString::to_string).collect();
        let text = if names.is_empty() {
            "has no effect without password_file, jwt_key_file or http_auth_url".to_owned()
        } else {
            format!("has to name those that there are, and no others: {}", names.join(" "))
        };
        return Err(("auth_order", text));
    }
    auth.order = order;
    Ok(())
}

/// What cannot be had together.
fn contradictions(listener: &Listener, proxy_requires_tls: bool) -> Vec<Diagnostic> {
    let is_unix = matches!(listener.address, Address::Unix(_));
    let version = listener.proxy.as_ref().map(|proxy| proxy.version);
    let has_authorities = |l: &Listener| {
        l.tls
            .as_ref()
            .is_some_and(|tls| tls.cafile.is_some() || tls.capath.is_some())
    };
    // A header of version 2 has a Common Name in it, and no whole subject.
    let proxy_proves =
        version == Some(2) && listener.tls.is_none() && listener.certificate_name == Some(CertificateName::CommonName);
    let nobody_proves = listener.certificate_name.is_some() && !has_authorities(listener) && !proxy_proves;
    let socket = &listener.socket;
    let rules = [
        (
            "unix_socket_mode",
            socket.unix_mode.is_some() && !is_unix,
            "is for Unix sockets",
        ),
        (
            "unix_socket_owner",
            socket.unix_owner.is_some() && !is_unix,
            "is for Unix sockets",
        ),
        (
            "socket_domain",
            socket.domain.is_some() && is_unix,
            "is not for Unix sockets",
        ),
        (
            "bind_interface",
            socket.interface.is_some() && is_unix,
            "is not for Unix sockets",
        ),
        (
            "websockets_origin",
            !listener.websockets.origins.is_empty() && listener.protocol != Protocol::WebSockets,
            "has no effect without `protocol websockets`",
        ),
        (
            "proxy_protocol_v2_require_tls",
            proxy_requires_tls && version != Some(2),
            "has no effect without `enable_proxy_protocol 2`",
        ),
    ];
    let broken = rules.into_iter().filter(|(_, broken, _)| *broken);
    let mut errors: Vec<_> = broken
        .map(|(name, _, text)| listener.place_of(name).say(format!("`{name}` {text}")))
        .collect();
    let names = ["use_identity_as_username", "use_subject_as_username"];
    if let (true, Some((name, place))) = (nobody_proves, listener.places.first(names)) {
        let text =
            "needs certificates of clients: certfile and keyfile, and the clients' authorities in cafile or capath";
        errors.push(place.say(format!("`{name}` {text}")));
    }
    errors
}
