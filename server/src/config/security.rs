//! The directives that say who may connect.

use super::directives::{Directive, Scope};
use super::show::{one, optional, path};
use super::{CertificateName, Config};

/// Longest beginning of a Client Identifier made by the broker, in bytes.
const PREFIX_BYTES_MAX: usize = 50;

pub(crate) const ALLOW_ANONYMOUS: Directive = Directive::new(
    "allow_anonymous",
    "true|false",
    "true in a sol file and without listeners, else false",
    "Whether clients without a user name are let in.",
    |draft, reader| {
        draft.security().allow_anonymous = Some(reader.switch()?);
        Ok(())
    },
)
.of(Scope::Security)
.shown_each(|listener| one(listener.auth.allow_anonymous));

pub(crate) const PASSWORD_FILE: Directive = Directive::new(
    "password_file",
    "PATH",
    "none",
    "Lines of `user:hash`, written by `sol passwd`; in a sol file it is read only with allow_anonymous false.",
    |draft, reader| {
        draft.security().password_file = Some(reader.path()?);
        Ok(())
    },
)
.of(Scope::Security)
.shown_each(|listener| path(listener.auth.password_file.as_deref()));

pub(crate) const ROWS: &[Directive] = &[
    Directive::new(
        "per_listener_settings",
        "true|false",
        "false",
        "Whether the directives about who may connect hold for the listener above them alone; stands above all of them.",
        |draft, reader| draft.per_listener_settings(reader),
    )
    .own(),
    Directive::new(
        "listener_allow_anonymous",
        "true|false",
        "as allow_anonymous",
        "Whether clients of this listener are let in without a user name.",
        |draft, reader| {
            draft.part().security.allow_anonymous = Some(reader.switch()?);
            Ok(())
        },
    )
    .own()
    .of(Scope::ListenerAbove),
    Directive::new(
        "acl_file",
        "PATH",
        "none: everybody may do everything",
        "Who may read and write which topics.",
        |draft, reader| {
            draft.security().acl_file = Some(reader.path()?);
            Ok(())
        },
    )
    .own()
    .of(Scope::Security)
    .shown_each(|listener| path(listener.auth.acl_file.as_deref())),
    Directive::new(
        "allow_zero_length_clientid",
        "true|false",
        "true",
        "Whether a client may leave its Client Identifier empty.",
        |draft, reader| {
            draft.security().allow_zero_length_clientid = Some(reader.switch()?);
            Ok(())
        },
    )
    .own()
    .of(Scope::Security)
    .shown_each(|listener| one(listener.auth.allow_zero_length_clientid)),
    Directive::new(
        "auto_id_prefix",
        "TEXT",
        "auto-",
        "What a Client Identifier made by the broker starts with.",
        |draft, reader| {
            draft.security().auto_id_prefix = Some(reader.with(prefix)?);
            Ok(())
        },
    )
    .own()
    .of(Scope::Security)
    .shown_each(|listener| one(&listener.auth.auto_id_prefix)),
    Directive::new(
        "listener_auto_id_prefix",
        "TEXT",
        "as auto_id_prefix",
        "What a Client Identifier made by the broker starts with at this listener.",
        |draft, reader| {
            draft.part().security.auto_id_prefix = Some(reader.with(prefix)?);
            Ok(())
        },
    )
    .own()
    .of(Scope::ListenerAbove),
    Directive::new(
        "use_username_as_clientid",
        "true|false",
        "false",
        "Whether the User Name is the Client Identifier, whatever the client gave; who has none is not let in.",
        |draft, reader| {
            draft.part().listener.auth.use_username_as_clientid = reader.switch()?;
            Ok(())
        },
    )
    .own()
    .of(Scope::Listener)
    .shown_each(|listener| one(listener.auth.use_username_as_clientid)),
    Directive::new(
        "clientid_prefixes",
        "TEXT",
        "none",
        "What every Client Identifier has to begin with.",
        |draft, reader| {
            draft.clientid_prefixes = Some(reader.rest()?.text.to_owned());
            Ok(())
        },
    )
    .own()
    .shown(|config| optional(first_prefixes(config))),
    Directive::new(
        "use_identity_as_username",
        "true|false",
        "false",
        "Whether the Common Name of a client's certificate is its User Name, and its Password needless.",
        |draft, reader| {
            draft.part().names.common = reader.switch()?;
            Ok(())
        },
    )
    .own()
    .of(Scope::Listener)
    .restart()
    .shown_each(|listener| one(listener.certificate_name == Some(CertificateName::CommonName))),
    Directive::new(
        "use_subject_as_username",
        "true|false",
        "false",
        "Whether the whole subject of a client's certificate is its User Name, and its Password needless.",
        |draft, reader| {
            draft.part().names.subject = reader.switch()?;
            Ok(())
        },
    )
    .own()
    .of(Scope::Listener)
    .restart()
    .shown_each(|listener| one(listener.certificate_name == Some(CertificateName::Subject))),
];

fn first_prefixes(config: &Config) -> Option<&String> {
    config.listeners.first()?.auth.clientid_prefixes.as_ref()
}

fn prefix(text: &str) -> Result<String, String> {
    if text.len() > PREFIX_BYTES_MAX || text.contains(['+', '#', '/']) {
        return Err(format!(
            "`{text}` is longer than {PREFIX_BYTES_MAX} bytes or has one of + # /"
        ));
    }
    Ok(text.to_owned())
}
