//! The form of a request path that a lenient server may act on (RFC 3986, section 6.2.2).

use std::borrow::Cow;

/// Normalizes the path of a request target for judging only; what is forwarded stays as it is.
///
/// Decodes escapes of unreserved characters, `%2f` and `%5c`, takes `\` for `/`, merges slashes
/// and resolves dot segments, also those with parameters (`..;x`). The query is left alone.
/// Borrowed when nothing changes.
pub fn normalize(target: &[u8]) -> Cow<'_, [u8]> {
    if target.first() != Some(&b'/') || is_normal(target) {
        return Cow::Borrowed(target);
    }
    let end = target.iter().position(|&byte| ends_path(byte)).unwrap_or(target.len());
    let (path, query) = target.split_at(end);
    let decoded = decode(path);
    let mut normal = Vec::with_capacity(target.len());
    let mut segments = decoded.split(|&byte| byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment.split(|&byte| byte == b';').next().unwrap_or_default() {
            b"." => {}
            b".." => normal.truncate(normal.iter().rposition(|&byte| byte == b'/').unwrap_or(0)),
            b"" if segment.is_empty() => {}
            _ => {
                normal.push(b'/');
                normal.extend_from_slice(segment);
                continue;
            }
        }
        if last {
            normal.push(b'/');
        }
    }
    normal.extend_from_slice(query);
    if normal == target { Cow::Borrowed(target) } else { Cow::Owned(normal) }
}

/// Whether there is nothing to do; may say no to a path that is normal. Every request pays for it.
fn is_normal(target: &[u8]) -> bool {
    let mut before = 0;
    for &byte in target {
        match byte {
            b'%' | b'\\' => return false,
            b'/' | b'.' if before == b'/' => return false,
            _ if ends_path(byte) => return true,
            _ => before = byte,
        }
    }
    true
}

fn ends_path(byte: u8) -> bool {
    matches!(byte, b'?' | b'#')
}

fn decode(path: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        decoded.push(match (byte, tail) {
            (b'%', [high, low, after @ ..]) => match escaped(*high, *low) {
                Some(b'/' | b'\\') => {
                    rest = after;
                    b'/'
                }
                Some(value) if value.is_ascii_alphanumeric() || b"-._~".contains(&value) => {
                    rest = after;
                    value
                }
                _ => b'%',
            },
            (b'\\', _) => b'/',
            _ => *byte,
        });
    }
    decoded
}

fn escaped(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::normalize;
    use proptest::prelude::*;
    use std::borrow::Cow;

    #[test]
    fn table() {
        for (target, normal) in [
            ("/", "/"),
            ("/a/b?x=/../y", "/a/b?x=/../y"),
            ("/public/../admin", "/admin"),
            ("/public/%2e%2e/admin", "/admin"),
            ("/public/%2E./admin?q", "/admin?q"),
            ("/public/..%2fadmin", "/admin"),
            ("/public/..%5Cadmin", "/admin"),
            ("/public/..\\admin", "/admin"),
            ("/public/..;x=1/admin", "/admin"),
            ("/../../etc", "/etc"),
            ("/a/./b/.", "/a/b/"),
            ("/a/b/..", "/a/"),
            ("/a/..", "/"),
            ("//a///b/", "/a/b/"),
            ("/a/...", "/a/..."),
            ("/.well-known/x", "/.well-known/x"),
            ("/a;v=1/b", "/a;v=1/b"),
            ("/%61%7Eb", "/a~b"),
            ("/a%20b", "/a%20b"),
            ("/a%", "/a%"),
            ("/a%2", "/a%2"),
            ("/a%zz", "/a%zz"),
            ("/%252e%252e/x", "/%252e%252e/x"),
            ("*", "*"),
            ("", ""),
        ] {
            assert_eq!(String::from_utf8_lossy(&normalize(target.as_bytes())), normal, "{target}");
        }
    }

    #[test]
    fn usual_paths_are_not_copied() {
        assert!(matches!(normalize(b"/v1/orders/17?limit=3"), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn has_no_dot_segments_left(target in "/([ab./\\\\;]|%2[eEfF]|%5c){0,24}") {
            let normal = normalize(target.as_bytes()).into_owned();
            prop_assert_eq!(normal.first(), Some(&b'/'));
            for segment in normal.split(|&byte| byte == b'/') {
                let name = segment.split(|&byte| byte == b';').next().unwrap();
                prop_assert!(name != b"." && name != b"..", "{:?}", normal);
            }
        }

        #[test]
        fn is_idempotent(target in "/([ab./\\\\;]|%25|%2[eEfF]|%5c|[?#]){0,24}") {
            let once = normalize(target.as_bytes()).into_owned();
            prop_assert_eq!(&*normalize(&once), &*once);
        }

        #[test]
        fn never_panics(target in prop::collection::vec(any::<u8>(), 0..64)) {
            normalize(&target);
        }
    }
}
