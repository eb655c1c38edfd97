//! The keys of an issuer, from a JSON Web Key Set (RFC 7517): each with its `kid` and the algorithms that it may be used
//! with.

use std::collections::BTreeMap;

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};

/// Bytes of a file of keys.
pub const KEYS_BYTES: usize = 256 << 10;
/// Keys of an issuer.
const KEYS: usize = 64;
/// Bytes of a key's id.
const KID: usize = 256;

/// A key that an issuer signs with.
pub(super) struct IssuerKey {
    /// What tokens may be signed with it by.
    pub algorithms: Vec<Algorithm>,
    pub key: DecodingKey,
}

/// The keys of one issuer, by their `kid`.
pub(super) type Keys = BTreeMap<String, IssuerKey>;

/// Reads a file of keys, and leaves out those that sign no tokens of these algorithms: none may be left, which is how all are
/// taken back. What it says of what is wrong holds nothing of the file.
pub(super) fn read(bytes: &[u8], allowed: &[Algorithm]) -> Result<Keys, String> {
    if bytes.len() > KEYS_BYTES {
        return Err(format!("it has {} bytes, and a file of keys has at most {KEYS_BYTES}", bytes.len()));
    }
    let wrong = |_| "it is no JSON Web Key Set: {\"keys\": [...]}".to_owned();
    let text: serde_json::Value = serde_json::from_slice(bytes).map_err(wrong)?;
    let listed = text.get("keys").and_then(|keys| keys.as_array()).map(Vec::as_slice).unwrap_or_default();
    if listed.iter().any(|key| key.get("d").is_some()) {
        return Err(
            "it holds a private key: anybody who reads it can make tokens; take that key out of use, and give the \
                    public ones only"
                .to_owned(),
        );
    }
    let JwkSet { keys: listed } = serde_json::from_value(text).map_err(wrong)?;
    if listed.len() > KEYS {
        return Err(format!("it has {} keys, and an issuer has at most {KEYS}", listed.len()));
    }
    let mut keys = Keys::new();
    for jwk in &listed {
        let Some(kid) = jwk.common.key_id.as_ref().filter(|kid| !kid.is_empty() && kid.len() <= KID) else { continue };
        if matches!(&jwk.common.public_key_use, Some(usage) if *usage != PublicKeyUse::Signature) {
            continue;
        }
        let Some(key) = key(jwk, allowed) else { continue };
        if keys.insert(kid.clone(), key).is_some() {
            return Err("two of its keys have one `kid`: nobody could tell which is meant".to_owned());
        }
    }
    Ok(keys)
}

/// A key, if it can be used with any algorithm that is allowed.
fn key(jwk: &Jwk, allowed: &[Algorithm]) -> Option<IssuerKey> {
    const RSA: [Algorithm; 6] =
        [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];
    let bytes = |text: &str| BASE64URL_NOPAD.decode(text.as_bytes()).ok();
    let (fits, key): (&[Algorithm], DecodingKey) = match &jwk.algorithm {
        AlgorithmParameters::EllipticCurve(point) => {
            let (fits, size): (&[Algorithm], usize) = match point.curve {
                EllipticCurve::P256 => (&[Algorithm::ES256], 32),
                EllipticCurve::P384 => (&[Algorithm::ES384], 48),
                _ => return None,
            };
            let (x, y) = (bytes(&point.x)?, bytes(&point.y)?);
            if x.len() != size || y.len() != size {
                return None;
            }
            // SEC 1, section 2.3.3: an uncompressed point.
            (fits, DecodingKey::from_ec_der(&[&[4][..], &x, &y].concat()))
        }
        AlgorithmParameters::OctetKeyPair(point) if point.curve == EllipticCurve::Ed25519 => {
            let x = bytes(&point.x).filter(|x| x.len() == 32)?;
            (&[Algorithm::EdDSA], DecodingKey::from_ed_der(&x))
        }
        AlgorithmParameters::RSA(key) => {
            let (n, e) = (bytes(&key.n)?, bytes(&key.e)?);
            // Shorter and longer ones are refused by ring anyway.
            if !(256..=1_024).contains(&n.len()) || e.is_empty() || e.len() > 4 {
                return None;
            }
            (&RSA, DecodingKey::from_rsa_raw_components(&n, &e))
        }
        // A secret that is shared, and what nobody knows.
        _ => return None,
    };
    let named = jwk.common.key_algorithm.map(Algorithm::try_from);
    let may = |algorithm: &Algorithm| match &named {
        // What the key says of itself goes before what its kind could do.
        Some(Ok(named)) => named == algorithm,
        Some(Err(_)) => false,
        None => true,
    };
    let algorithms: Vec<Algorithm> =
        fits.iter().copied().filter(|algorithm| allowed.contains(algorithm) && may(algorithm)).collect();
    (!algorithms.is_empty()).then_some(IssuerKey { algorithms, key })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Algorithm; 2] = [Algorithm::ES256, Algorithm::EdDSA];

    fn set(keys: &[String]) -> Vec<u8> {
        format!("{{\"keys\":[{}]}}", keys.join(",")).into_bytes()
    }

    fn of(bytes: usize) -> String {
        BASE64URL_NOPAD.encode(&vec![7; bytes])
    }

    fn ed(kid: &str) -> String {
        format!("{{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"{kid}\",\"x\":\"{}\"}}", of(32))
    }

    fn ec(kid: &str, more: &str) -> String {
        let coordinate = of(32);
        format!(
            "{{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"{kid}\",\"x\":\"{coordinate}\",\"y\":\"{coordinate}\"{more}}}"
        )
    }

    fn rsa(kid: &str, more: &str) -> String {
        format!("{{\"kty\":\"RSA\",\"kid\":\"{kid}\",\"n\":\"{}\",\"e\":\"AQAB\"{more}}}", of(256))
    }

    fn names(keys: &Keys) -> Vec<&str> {
        keys.keys().map(String::as_str).collect()
    }

    #[test]
    fn a_key_is_used_with_what_its_kind_and_itself_and_the_configuration_allow() {
        let keys = read(&set(&[ed("a"), ec("b", ""), rsa("c", "")]), &BOTH).unwrap();
        assert_eq!(names(&keys), ["a", "b"], "no RSA is allowed");
        assert_eq!(
            (&*keys["a"].algorithms, &*keys["b"].algorithms),
            (&[Algorithm::EdDSA][..], &[Algorithm::ES256][..])
        );
        let many = [Algorithm::RS256, Algorithm::PS256];
        let keys = read(&set(&[rsa("c", ""), rsa("d", ",\"alg\":\"PS256\"")]), &many).unwrap();
        assert_eq!((&*keys["c"].algorithms, &*keys["d"].algorithms), (&many[..], &[Algorithm::PS256][..]));
    }

    #[test]
    fn keys_that_sign_nothing_are_left_out() {
        let secret = format!("{{\"kty\":\"oct\",\"kid\":\"h\",\"k\":\"{}\",\"alg\":\"HS256\"}}", of(32));
        let short = format!("{{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"s\",\"x\":\"{}\"}}", of(31));
        let strange = "{\"kty\":\"lattice\",\"kid\":\"l\"}".to_owned();
        let nameless = ed("x").replace("\"kid\":\"x\",", "");
        let others = [ec("e", ",\"use\":\"enc\""), ec("f", ",\"alg\":\"HS256\""), ec("g", ",\"alg\":\"ES384\"")];
        let all = [vec![secret, short, strange, nameless, ed("a")], others.to_vec()].concat();
        assert_eq!(names(&read(&set(&all), &BOTH).unwrap()), ["a"]);
        assert!(read(&set(&others), &BOTH).unwrap().is_empty() && read(&set(&[]), &BOTH).unwrap().is_empty());
    }

    #[test]
    fn a_file_that_nobody_can_rely_on_is_refused_whole_and_not_repeated() {
        let private = ed("a").replace("\"kty\"", "\"d\":\"c2VjcmV0\",\"kty\"");
        let many: Vec<String> = (0..65).map(|number| ed(&number.to_string())).collect();
        let cases: [(&[u8], &str); 7] = [
            (b"{}", "no JSON Web Key Set"),
            (b"", "no JSON Web Key Set"),
            (b"{\"keys\":{}}", "no JSON Web Key Set"),
            (&set(&[private]), "private"),
            (&set(&[ed("a"), ec("a", "")]), "one `kid`"),
            (&set(&many), "65 keys"),
            (&vec![b' '; KEYS_BYTES + 1], "bytes"),
        ];
        for (bytes, named) in cases {
            let why = read(bytes, &BOTH).err().unwrap();
            assert!(why.contains(named) && !why.contains("c2VjcmV0"), "{why}");
        }
    }
}
