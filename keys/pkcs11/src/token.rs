//! A token for one call: found by its label, logged in to, and the work of its key.

use cryptoki::context::{Function, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use strongroom_keys::RootError;
use zeroize::Zeroizing;

use crate::KIND;
use crate::Settings;
use crate::failure::classify;
use crate::pin::Pins;

/// AES-GCM's usual nonce (SP 800-38D section 8.2): 96 random bits. A root key wraps a handful of keys in its life.
const NONCE: usize = 12;
/// Bits of a tag.
const TAG_BITS: u64 = 128;
/// Bytes of a key.
const KEY: u64 = 32;

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// To use what is there.
    Use,
    /// To make something in the token.
    Change,
}

/// A key of the token.
pub(crate) struct Key {
    handle: ObjectHandle,
    /// Its `CKA_ID`.
    pub(crate) id: Vec<u8>,
}

/// A token that is logged in to. Its session ends, and with it the login, when this is dropped.
pub(crate) struct Token {
    session: Session,
    slot: Slot,
    pkcs11: Pkcs11,
    label: String,
}

impl Token {
    /// Finds the token and logs in.
    pub(crate) fn open(pkcs11: &Pkcs11, settings: &Settings, pins: &Pins, access: Access) -> Result<Self, RootError> {
        let (slot, info) = find(pkcs11, settings)?;
        if info.user_pin_locked() || info.user_pin_final_try() {
            return Err(KIND.credential(
                "the token's PIN is locked, or the next wrong one locks it, so none is tried: log in once by another \
                 program (pkcs11-tool --login) or have the token's security officer set the PIN anew",
            ));
        }
        let session = match access {
            Access::Use => pkcs11.open_ro_session(slot),
            Access::Change => pkcs11.open_rw_session(slot),
        }
        .map_err(classify)?;
        let pin = pins.next()?;
        let login = session.login(UserType::User, Some(&pin.for_login()));
        if let Err(Error::Pkcs11(RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange, _)) = login {
            pins.refuse(pin);
        }
        login.map_err(classify)?;
        Ok(Self { session, slot, pkcs11: pkcs11.clone(), label: settings.token.clone() })
    }

    /// The one key with this label and, if given, this id.
    pub(crate) fn find_key(&self, label: &str, id: Option<&[u8]>) -> Result<Key, RootError> {
        let mut template = vec![
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::AES),
            Attribute::Label(label.as_bytes().to_vec()),
        ];
        template.extend(id.filter(|id| !id.is_empty()).map(|id| Attribute::Id(id.to_vec())));
        let found = self.session.find_objects(&template).map_err(classify)?;
        match found.as_slice() {
            [handle] => self.usable(label, *handle),
            [] if id.is_some() => Err(KIND.other_key(format!(
                "token {:?} has no AES key {label:?} with the CKA_ID of the one that sealed: put that key back, or name \
                 its token",
                self.label
            ))),
            // Nothing was sealed by it yet.
            [] => Err(KIND.settings(format!(
                "token {:?} has no AES key {label:?}: make it, or correct the label",
                self.label
            ))),
            _ => Err(KIND.settings(format!(
                "token {:?} has {} AES keys {label:?}: give the right one a label of its own",
                self.label,
                found.len()
            ))),
        }
    }

    /// Refuses a key that could leave the token, or is shorter than the keys that it wraps.
    fn usable(&self, label: &str, handle: ObjectHandle) -> Result<Key, RootError> {
        let asked = [
            AttributeType::Private,
            AttributeType::Sensitive,
            AttributeType::Extractable,
            AttributeType::ValueLen,
            AttributeType::Id,
        ];
        let attributes = self.session.get_attributes(handle, &asked).map_err(classify)?;
        let (mut private, mut sensitive, mut extractable, mut length, mut id) = (false, false, true, 0, Vec::new());
        for attribute in attributes {
            match attribute {
                Attribute::Private(is) => private = is,
                Attribute::Sensitive(is) => sensitive = is,
                Attribute::Extractable(is) => extractable = is,
                Attribute::ValueLen(bytes) => length = *bytes,
                Attribute::Id(is) => id = is,
                _ => {}
            }
        }
        if !private || !sensitive || extractable || length != KEY {
            return Err(KIND.settings(format!(
                "the key {label:?} is not AES-256, private, sensitive and not extractable, so it could be used without a \
                 PIN, read or guessed: make another in the token"
            )));
        }
        Ok(Key { handle, id })
    }

    /// Encrypts. Gives nonce, ciphertext and tag.
    pub(crate) fn seal(&self, key: &Key, aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, RootError> {
        let mut nonce = strongroom_keys::random::<NONCE>()?;
        let sealed = {
            let mechanism = gcm(&mut nonce, aad)?;
            self.session.encrypt(&mechanism, key.handle, plaintext).map_err(classify)?
        };
        // Some tokens choose the nonce themselves and write it over the one that they were given.
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Decrypts what [`Self::seal`] gave.
    pub(crate) fn open_sealed(&self, key: &Key, aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, RootError> {
        let Some((&nonce, sealed)) = sealed.split_first_chunk::<NONCE>() else {
            return Err(KIND.other_key("it is shorter than a nonce: put the keystore's newest copy back"));
        };
        let (nonce_is, mut nonce) = (nonce, nonce);
        let mechanism = gcm(&mut nonce, aad)?;
        match self.session.decrypt(&mechanism, key.handle, sealed) {
            Ok(plaintext) => Ok(Zeroizing::new(plaintext)),
            // Tokens have many words for a tag that does not match, "general error" among them. Whether it is the token
            // that fails shows in something that must open.
            Err(Error::Pkcs11(_, Function::Decrypt)) if self.works(key) => self.open_again(key, aad, nonce_is, sealed),
            Err(error) => Err(classify(error)),
        }
    }

    /// Once more, with a token that works: what failed may have been the token for a moment.
    fn open_again(
        &self,
        key: &Key,
        aad: &[u8],
        mut nonce: [u8; NONCE],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, RootError> {
        match self.session.decrypt(&gcm(&mut nonce, aad)?, key.handle, sealed) {
            Ok(plaintext) => Ok(Zeroizing::new(plaintext)),
            Err(_) => Err(KIND.other_key(
                "the token works, and this does not open with its key: it was sealed by another key, for another \
                 vault, or was changed",
            )),
        }
    }

    /// Whether the key opens what it seals.
    fn works(&self, key: &Key) -> bool {
        let probe = || -> Result<bool, RootError> {
            let (aad, plaintext) = (b"strongroom probe", [0; KEY as usize]);
            let sealed = self.seal(key, aad, &plaintext)?;
            let Some((&nonce, sealed)) = sealed.split_first_chunk::<NONCE>() else { return Ok(false) };
            let mut nonce = nonce;
            let opened = self.session.decrypt(&gcm(&mut nonce, aad)?, key.handle, sealed).map_err(classify)?;
            Ok(opened == plaintext)
        };
        probe().unwrap_or(false)
    }

    /// Makes a key that never leaves the token.
    pub(crate) fn create_key(&self, label: &str, id: &[u8]) -> Result<(), RootError> {
        if !self.session.find_objects(&[Attribute::Label(label.as_bytes().to_vec())]).map_err(classify)?.is_empty() {
            return Err(KIND.settings(format!(
                "token {:?} has something labelled {label:?} already: use it, or choose another label",
                self.label
            )));
        }
        // Without it the key would be of no use, and would stay.
        let mechanisms = self.pkcs11.get_mechanism_list(self.slot).map_err(classify)?;
        if !mechanisms.contains(&MechanismType::AES_GCM) {
            return Err(KIND.settings(format!("token {:?} does not have CKM_AES_GCM: use one that has it", self.label)));
        }
        let template = [
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Encrypt(true),
            Attribute::Decrypt(true),
            Attribute::Wrap(false),
            Attribute::Unwrap(false),
            Attribute::ValueLen(KEY.into()),
            Attribute::Label(label.as_bytes().to_vec()),
            Attribute::Id(id.to_vec()),
        ];
        self.session.generate_key(&Mechanism::AesKeyGen, &template).map_err(classify)?;
        Ok(())
    }
}

fn gcm<'a>(nonce: &'a mut [u8; NONCE], aad: &'a [u8]) -> Result<Mechanism<'a>, RootError> {
    GcmParams::new(nonce, aad, TAG_BITS.into()).map(Mechanism::AesGcm).map_err(classify)
}

fn find(pkcs11: &Pkcs11, settings: &Settings) -> Result<(Slot, TokenInfo), RootError> {
    let wanted = |info: &TokenInfo| {
        info.label() == settings.token && settings.serial.as_deref().is_none_or(|serial| info.serial_number() == serial)
    };
    let slots = pkcs11.get_slots_with_token().map_err(classify)?;
    let mut found: Vec<(Slot, TokenInfo)> = slots
        .into_iter()
        // A reader that fails hides its own token only.
        .filter_map(|slot| pkcs11.get_token_info(slot).ok().map(|info| (slot, info)))
        .filter(|(_, info)| wanted(info))
        .collect();
    match (found.pop(), found.is_empty()) {
        (Some(token), true) => Ok(token),
        (Some(_), false) => Err(KIND
            .settings(format!("several tokens have the label {:?}: give the serial of the right one", settings.token))),
        (None, _) => Err(KIND.unreachable(format!(
            "no token {:?}{} is in any reader: put it in, or correct the label",
            settings.token,
            settings.serial.as_ref().map(|serial| format!(" with serial {serial:?}")).unwrap_or_default()
        ))),
    }
}
