//! What is known to be sensitive by its form, and by its check digits where it has some.
//!
//! Numbers stand alone: no letter or digit touches them, so that no part of an identifier is taken for one.

use super::spans::Span;

/// Something that is recognised by its form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detector {
    Card,
    Cpf,
    Cnpj,
    Email,
    Bearer,
    AwsKey,
}

/// Each by the name users give it.
pub(super) const DETECTORS: [(&str, Detector); 6] = [
    ("card", Detector::Card),
    ("cpf", Detector::Cpf),
    ("cnpj", Detector::Cnpj),
    ("email", Detector::Email),
    ("bearer", Detector::Bearer),
    ("aws-key", Detector::AwsKey),
];

/// Names of fields that hold a part of AWS credentials that has no form of its own: how they end, as [`super::keys`] compares names.
pub(super) const AWS_SECRET_NAMES: [&str; 3] = ["secretaccesskey", "sessiontoken", "securitytoken"];

/// How cards are printed (ISO/IEC 7812-1 has no say in it): `9` is a digit.
const CARD_FORMS: [&[u8]; 8] = [
    b"9999 9999 9999 9999 999",
    b"9999-9999-9999-9999-999",
    b"9999 9999 9999 9999",
    b"9999-9999-9999-9999",
    b"9999 999999 99999",
    b"9999-999999-99999",
    b"9999 999999 9999",
    b"9999-999999-9999",
];
/// Cards without separators.
const CARD_DIGITS: std::ops::RangeInclusive<usize> = 13..=19;
/// CPF, as Receita Federal writes it.
const CPF_FORMS: [&[u8]; 2] = [b"999.999.999-99", b"99999999999"];
/// CNPJ likewise; `A` is a digit or a capital (Instrução Normativa RFB 2.229/2024). JSON may escape the slash.
const CNPJ_FORMS: [&[u8]; 3] = [b"AA.AAA.AAA/AAAA-99", b"AA.AAA.AAA\\/AAAA-99", b"AAAAAAAAAAAA99"];
/// The longest of them in digits.
const CODE_MAX_DIGITS: usize = 19;

/// The first four digits of the networks that issue cards: from, to, and how many digits their cards have. Without them every
/// tenth time stamp would be a card.
const ISSUERS: [(u32, u32, usize, usize); 4] = [
    (2221, 2720, 16, 16), // Mastercard
    (3000, 3999, 14, 19), // American Express, Diners Club, JCB
    (4000, 4999, 13, 19), // Visa, Elo
    (5000, 6999, 13, 19), // Mastercard, Maestro, Discover, UnionPay, Elo, Hipercard
];

/// What comes after `Bearer` is a token from this length on: `bearer of news` is none.
const BEARER_MIN_BYTES: usize = 8;
/// The parts of a JSON Web Token (RFC 7519) are at least so long.
const JWT_PART_MIN_BYTES: usize = 4;
/// Kinds of AWS access key ids: long-term, temporary, and of a service or a context (IAM user guide, "Unique identifiers").
const AWS_ID_PREFIXES: [&[u8]; 4] = [b"AKIA", b"ASIA", b"ABIA", b"ACCA"];
const AWS_ID_BYTES: usize = 20;
/// A secret access key has 40 characters, a session token hundreds.
const AWS_SECRET_MIN_BYTES: usize = 30;
/// Between the name of a secret and the secret: quotes, escapes, `=`, `:`, blanks.
const AWS_GAP_MAX_BYTES: usize = 12;

impl Detector {
    /// Notes where in `text` it is found.
    pub(super) fn find(self, text: &str, spans: &mut Vec<Span>) {
        let bytes = text.as_bytes();
        match self {
            Self::Card => codes(bytes, spans, card),
            Self::Cpf => codes(bytes, spans, |text, at| coded(text, at, &CPF_FORMS, is_cpf)),
            Self::Cnpj => codes(bytes, spans, |text, at| coded(text, at, &CNPJ_FORMS, is_cnpj)),
            Self::Email => emails(bytes, spans),
            Self::Bearer => {
                bearers(bytes, spans);
                web_tokens(bytes, spans);
            }
            Self::AwsKey => {
                aws_ids(bytes, spans);
                aws_secrets(bytes, spans);
            }
        }
    }
}

fn at(text: &[u8], index: usize) -> u8 {
    text.get(index).copied().unwrap_or_default()
}

/// What follows the backslash of `\u00ba`.
const CODE_UNIT_BYTES: usize = 5;

/// Whether a word may begin at `start`: what stands before is no letter or digit, or it belongs to an escape (`\n`, `\u00ba`).
fn begins(text: &[u8], start: usize) -> bool {
    let Some(before) = start.checked_sub(1) else { return true };
    !at(text, before).is_ascii_alphanumeric()
        || escaped(text, before) == 1
        || start.checked_sub(CODE_UNIT_BYTES).is_some_and(|unit| escaped(text, unit) == CODE_UNIT_BYTES)
}

/// How many letters and digits from `index` on belong to an escape, of JSON or of JSON within JSON, whose backslash stands
/// before: none if there is none.
fn escaped(text: &[u8], index: usize) -> usize {
    if index == 0 || at(text, index - 1) != b'\\' {
        return 0;
    }
    match text.get(index..).unwrap_or_default() {
        [b'n' | b't' | b'r' | b'b' | b'f', ..] => 1,
        [b'u', digits @ ..]
            if digits.iter().take(4).filter(|digit| digit.is_ascii_hexdigit()).count() == 4 =>
        {
            CODE_UNIT_BYTES
        }
        _ => 0,
    }
}

fn run(text: &[u8], from: usize, mut belongs: impl FnMut(u8) -> bool) -> usize {
    let rest = text.get(from..).unwrap_or_default();
    from + rest.iter().take_while(|byte| belongs(**byte)).count()
}

/// Asks `read` at the beginning of each word that begins like a code.
fn codes(text: &[u8], spans: &mut Vec<Span>, read: impl Fn(&[u8], usize) -> Option<usize>) {
    let mut from = 0;
    while let Some(found) = text.get(from..).unwrap_or_default().iter().position(u8::is_ascii_alphanumeric) {
        let start = from + found;
        let start = start + escaped(text, start);
        let begins_a_code = at(text, start).is_ascii_digit() || at(text, start).is_ascii_uppercase();
        if begins_a_code && let Some(end) = read(text, start) {
            spans.push(Span::plain(start, end));
            from = end;
            continue;
        }
        // What was only an escape has nothing behind it to pass over.
        from = run(text, start, |byte| byte.is_ascii_alphanumeric()).max(from + found + 1);
    }
}

/// Where `form` ends, if it stands at `start` and nothing touches it.
fn formed(text: &[u8], start: usize, form: &[u8]) -> Option<usize> {
    let end = start + form.len();
    let fits = text.get(start..end)?.iter().zip(form).all(|(byte, form)| match form {
        b'9' => byte.is_ascii_digit(),
        b'A' => byte.is_ascii_digit() || byte.is_ascii_uppercase(),
        mark => byte == mark,
    });
    (fits && stands_alone(text, start, end)).then_some(end)
}

/// Nothing touches it, and it is no part of a decimal number.
fn stands_alone(text: &[u8], start: usize, end: usize) -> bool {
    let is_fraction = start >= 2 && at(text, start - 1) == b'.' && at(text, start - 2).is_ascii_digit();
    let has_fraction = at(text, end) == b'.' && at(text, end + 1).is_ascii_digit();
    begins(text, start) && !at(text, end).is_ascii_alphanumeric() && !is_fraction && !has_fraction
}

/// The digits and capitals of a code, each by its distance from `0` (IN RFB 2.229/2024, annex: ASCII less 48).
fn values(code: &[u8]) -> ([u32; CODE_MAX_DIGITS], usize) {
    let mut values = [0; CODE_MAX_DIGITS];
    let signs = code.iter().filter(|byte| byte.is_ascii_alphanumeric());
    let mut count = 0;
    for (value, sign) in values.iter_mut().zip(signs) {
        *value = u32::from(*sign) - u32::from(b'0');
        count += 1;
    }
    (values, count)
}

fn coded(text: &[u8], start: usize, forms: &[&[u8]], is_valid: fn(&[u32]) -> bool) -> Option<usize> {
    forms.iter().find_map(|form| {
        let end = formed(text, start, form)?;
        let (values, count) = values(text.get(start..end)?);
        is_valid(values.get(..count)?).then_some(end)
    })
}

fn card(text: &[u8], start: usize) -> Option<usize> {
    let plain = run(text, start, |byte| byte.is_ascii_digit());
    if CARD_DIGITS.contains(&(plain - start)) && stands_alone(text, start, plain) {
        let (values, count) = values(text.get(start..plain)?);
        if is_card(values.get(..count)?) {
            return Some(plain);
        }
    }
    coded(text, start, &CARD_FORMS, is_card)
}

fn is_card(digits: &[u32]) -> bool {
    let first = digits.iter().take(4).fold(0, |number, digit| number * 10 + digit);
    let issued = ISSUERS.iter().any(|(from, to, least, most)| {
        (*from..=*to).contains(&first) && (*least..=*most).contains(&digits.len())
    });
    issued && luhn(digits)
}

/// ISO/IEC 7812-1, annex B.
fn luhn(digits: &[u32]) -> bool {
    let doubled = |(place, digit): (usize, &u32)| match (place % 2, digit * 2) {
        (0, _) => *digit,
        (_, twice) => twice / 10 + twice % 10,
    };
    digits.iter().rev().enumerate().map(doubled).sum::<u32>().is_multiple_of(10)
}

/// The check digit of the Brazilian registers: modulo 11, weights from 2 upwards from the right, from 2 again after `most`.
fn check_digit(values: &[u32], most: u32) -> u32 {
    let sum: u32 = values.iter().rev().zip((2..=most).cycle()).map(|(value, weight)| value * weight).sum();
    match sum % 11 {
        0 | 1 => 0,
        rest => 11 - rest,
    }
}

/// Both check digits are right, and it is not the same digit throughout, which none that was issued is.
fn is_registered(values: &[u32], most: u32) -> bool {
    let Some((second, but_second)) = values.split_last() else { return false };
    let Some((first, body)) = but_second.split_last() else { return false };
    check_digit(body, most) == *first
        && check_digit(but_second, most) == *second
        && values.iter().any(|value| value != second)
}

fn is_cpf(values: &[u32]) -> bool {
    is_registered(values, 11)
}

fn is_cnpj(values: &[u32]) -> bool {
    is_registered(values, 9)
}

/// Addresses as they are used, not all that RFC 5322 allows: no quotes, no comments, a domain with a dot.
fn emails(text: &[u8], spans: &mut Vec<Span>) {
    let is_local =
        |byte: u8| byte.is_ascii_alphanumeric() || byte >= 0x80 || b".!#$%&'*+/=?^_`{|}~-".contains(&byte);
    let is_common = |byte: u8| byte.is_ascii_alphanumeric() || byte >= 0x80 || b"._%+-".contains(&byte);
    let is_domain = |byte: u8| byte.is_ascii_alphanumeric() || byte >= 0x80 || b".-".contains(&byte);
    for sign in text.iter().enumerate().filter(|(_, byte)| **byte == b'@').map(|(sign, _)| sign) {
        let local = text.get(..sign).unwrap_or_default();
        // Rarer characters only if a common one is next to the sign.
        let touching = local.last().is_some_and(|byte| is_common(*byte));
        let length =
            local.iter().rev().take_while(|byte| if touching { is_common(**byte) } else { is_local(**byte) });
        let start = sign - length.count();
        let start = start + escaped(text, start);
        let end = run(text, sign + 1, is_domain);
        let domain = text.get(sign + 1..end).unwrap_or_default();
        let trimmed = domain.len() - domain.iter().rev().take_while(|byte| b".-".contains(byte)).count();
        let domain = domain.get(..trimmed).unwrap_or_default();
        let top = domain.rsplit(|byte| *byte == b'.').next().unwrap_or_default();
        let has_dot = top.len() + 1 < domain.len();
        let is_top = top.len() >= 2 && top.iter().any(|byte| byte.is_ascii_alphabetic() || *byte >= 0x80);
        if start < sign && has_dot && is_top {
            spans.push(Span::plain(start, sign + 1 + trimmed));
        }
    }
}

/// What a bearer token is made of (RFC 6750, section 2.1).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)
}

/// Where `word` begins at or after `from`, in any case.
fn find_word(text: &[u8], word: &[u8], from: usize) -> Option<usize> {
    let windows = text.get(from..)?.windows(word.len());
    windows.enumerate().find(|(_, found)| found.eq_ignore_ascii_case(word)).map(|(found, _)| from + found)
}

/// What follows `Bearer`; the word stays.
fn bearers(text: &[u8], spans: &mut Vec<Span>) {
    const WORD: &[u8] = b"bearer";
    let mut from = 0;
    while let Some(found) = find_word(text, WORD, from) {
        from = found + WORD.len();
        if !begins(text, found) {
            continue;
        }
        // Blanks, also as URLs write them.
        let start = run(text, from, |byte| byte.is_ascii_whitespace() || byte == b'+');
        let start =
            if text.get(start..).is_some_and(|rest| rest.starts_with(b"%20")) { start + 3 } else { start };
        if start == from {
            continue;
        }
        let end = run(text, start, is_token);
        if end - start >= BEARER_MIN_BYTES {
            spans.push(Span::plain(start, end));
            from = end;
        }
    }
}

/// JSON Web Tokens (RFC 7519) in their compact form: three parts of base64url, of which the first begins an object.
fn web_tokens(text: &[u8], spans: &mut Vec<Span>) {
    const START: &[u8] = b"eyJ";
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let mut from = 0;
    while let Some(start) = find_word(text, START, from) {
        from = start + START.len();
        if !begins(text, start) {
            continue;
        }
        let mut end = run(text, start, is_part);
        // What begins within the first part has the same parts after it.
        from = end;
        let mut parts = 1;
        while at(text, end) == b'.' {
            let next = run(text, end + 1, is_part);
            if next - end <= JWT_PART_MIN_BYTES {
                break;
            }
            (end, parts) = (next, parts + 1);
        }
        if parts >= 3 {
            spans.push(Span::plain(start, end));
            from = end;
        }
    }
}

fn aws_ids(text: &[u8], spans: &mut Vec<Span>) {
    let starts = text.windows(AWS_ID_BYTES).enumerate().filter(|(_, id)| {
        AWS_ID_PREFIXES.iter().any(|prefix| id.starts_with(prefix))
            && id.iter().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
    });
    let ends = starts.map(|(start, _)| (start, start + AWS_ID_BYTES));
    let alone = ends.filter(|(start, end)| begins(text, *start) && !at(text, *end).is_ascii_alphanumeric());
    spans.extend(alone.map(|(start, end)| Span::plain(start, end)));
}

/// What stands behind the name of a secret: `aws_secret_access_key=…`, `"SessionToken":"…"`.
fn aws_secrets(text: &[u8], spans: &mut Vec<Span>) {
    let is_secret = |byte: u8| byte.is_ascii_alphanumeric() || b"/+=".contains(&byte);
    for (first, others) in
        [("secret", &["access", "key"][..]), ("session", &["token"][..]), ("security", &["token"][..])]
    {
        let mut from = 0;
        while let Some(found) = find_word(text, first.as_bytes(), from) {
            from = found + first.len();
            let ended = others.iter().try_fold(from, |at, word| {
                let at = run(text, at, |byte| b"_- .".contains(&byte));
                let end = at + word.len();
                text.get(at..end).filter(|found| found.eq_ignore_ascii_case(word.as_bytes())).map(|_| end)
            });
            let Some(ended) = ended else { continue };
            let mut gap = 0;
            let start = run(text, ended, |byte| {
                gap += 1;
                gap <= AWS_GAP_MAX_BYTES && (byte.is_ascii_whitespace() || b"\"'\\:=>".contains(&byte))
            });
            if start == ended {
                continue;
            }
            let end = run(text, start, is_secret);
            if end - start >= AWS_SECRET_MIN_BYTES {
                spans.push(Span::plain(start, end));
                from = end;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(name: &str, text: &str) -> Vec<String> {
        let detector = DETECTORS.iter().find(|(known, _)| *known == name).unwrap().1;
        let mut spans = Vec::new();
        detector.find(text, &mut spans);
        spans.iter().map(|span| text[span.start..span.end].to_owned()).collect()
    }

    #[test]
    fn what_begins_like_a_secret_again_and_again_is_looked_at_once() {
        for (name, word) in
            [("bearer", "bearer"), ("bearer", "eyJ"), ("bearer", "eyJ-"), ("aws-key", "secretaccesskey")]
        {
            // Each time to the end of the text, this would be 10¹¹ bytes.
            assert_eq!(found(name, &word.repeat(100_000)), [""; 0], "{word}");
        }
    }

    #[track_caller]
    fn finds(name: &str, text: &str) {
        for around in [
            text.to_owned(),
            format!("a {text}, b"),
            format!("\"{text}\""),
            format!(r"x\n{text}\n"),
            format!(r"n\u00ba{text}\u00ba"),
            format!(r#"{{\"m\":\"n\\u00BA{text}\"}}"#),
            format!("é{text}é"),
            format!("({text})."),
        ] {
            let found = found(name, &around);
            // Where letters of other alphabets may belong to it, they do.
            assert!(found.len() == 1 && found[0].contains(text), "{name} in {around:?}: {found:?}");
        }
    }

    #[track_caller]
    fn ignores(name: &str, text: &str) {
        assert_eq!(found(name, text), Vec::<String>::new(), "{name} in {text:?}");
    }

    #[test]
    fn cards_of_every_network_are_found_in_the_ways_they_are_written() {
        // The networks' own test numbers.
        for card in [
            "4111111111111111",
            "4222222222222",
            "4111 1111 1111 1111",
            "4111-1111-1111-1111",
            "5555555555554444",
            "5105 1051 0510 5100",
            "2223003122003222",
            "378282246310005",
            "3782 822463 10005",
            "371449635398431",
            "30569309025904",
            "3056 930902 5904",
            "6011111111111117",
            "3530111333300000",
            "6362970000457013",
            "6062826786276634",
            "6759649826438453",
        ] {
            finds("card", card);
        }
        assert_eq!(found("card", "2 4111 1111 1111 1111 1"), ["4111 1111 1111 1111"], "among other numbers");
    }

    #[test]
    fn what_only_resembles_a_card_is_left() {
        for text in [
            "4111111111111112",
            "4111 1111 1111 1112",
            "1715817560159",
            "1715817560000",
            "1715817560159000000",
            "0.4111111111111111",
            "4111111111111111.5",
            "a4111111111111111",
            "41111111111111110000",
            "411111111111",
            "4111 11111111 1111",
            "4111.1111.1111.1111",
            "00000000-4111-1111-1111-111111111111",
            "9111111111111111",
        ] {
            ignores("card", text);
        }
    }

    #[test]
    fn cpf_is_found_by_its_check_digits() {
        for cpf in ["529.982.247-25", "52998224725", "111.444.777-35", "123.456.789-09"] {
            finds("cpf", cpf);
        }
        for text in [
            "529.982.247-26",
            "52998224724",
            "111.111.111-11",
            "00000000000",
            "529.982.24725",
            "1529.982.247-25",
            "529982247250",
        ] {
            ignores("cpf", text);
        }
    }

    #[test]
    fn cnpj_is_found_by_its_check_digits_with_letters_and_without() {
        // The first with letters is the example of Receita Federal.
        for cnpj in [
            "12.ABC.345/01DE-35",
            "12ABC34501DE35",
            "11.222.333/0001-81",
            "11222333000181",
            r"11.222.333\/0001-81",
        ] {
            finds("cnpj", cnpj);
        }
        for text in [
            "12.ABC.345/01DE-36",
            "12.abc.345/01de-35",
            "11222333000182",
            "00000000000000",
            "11.222.333/0001-8",
            "X11222333000181",
        ] {
            ignores("cnpj", text);
        }
    }

    #[test]
    fn e_mail_addresses_are_found() {
        for address in [
            "bob@example.com",
            "bob.o'hara@example.com",
            "a+b_c@sub.example.co.uk",
            "x@münchen.de",
            "user@1000.service",
        ] {
            let found = found("email", &format!("to <{address}>, b"));
            assert!(found.len() == 1 && address.ends_with(&found[0]), "{address}: {found:?}");
        }
        finds("email", "bob@example.com");
        assert_eq!(found("email", "a@b.com,c@d.org;"), ["a@b.com", "c@d.org"]);
        assert_eq!(found("email", r"hi\nbob@example.com."), ["bob@example.com"]);
        for text in [
            "@example.com",
            "bob@",
            "bob@localhost",
            "java.lang.Object@1b2c3d",
            "@scope/pkg@1.2.3",
            "a @ b.com",
        ] {
            ignores("email", text);
        }
    }

    #[test]
    fn bearer_tokens_are_found_and_the_word_stays() {
        assert_eq!(found("bearer", "Authorization: Bearer abc.def-ghi_jkl~123=="), ["abc.def-ghi_jkl~123=="]);
        assert_eq!(found("bearer", "authorization=bearer%20hunter2-long"), ["hunter2-long"]);
        let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U";
        finds("bearer", jwt);
        for text in [
            "the bearer of news",
            "Bearer short",
            "forbearers 12345678",
            "eyJhbGciOiJIUzI1NiJ9",
            "eyJhbGciOiJIUzI1NiJ9.a.b",
        ] {
            ignores("bearer", text);
        }
    }

    #[test]
    fn aws_keys_are_found() {
        let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
        finds("aws-key", "AKIAIOSFODNN7EXAMPLE");
        finds("aws-key", "ASIAIOSFODNN7EXAMPLE");
        for text in [
            format!("aws_secret_access_key = {secret}"),
            format!("AWS_SECRET_ACCESS_KEY={secret}"),
            format!(r#"{{"SecretAccessKey": "{secret}"}}"#),
            format!(r#"{{\"secretAccessKey\":\"{secret}\"}}"#),
            format!("x-amz-security-token: {secret}"),
            format!("SessionToken => '{secret}'"),
        ] {
            assert_eq!(found("aws-key", &text), [secret], "{text}");
        }
        for text in [
            "AKIAIOSFODNN7EXAMPL",
            "AKIAIOSFODNN7EXAMPLE1",
            "XAKIAIOSFODNN7EXAMPLE",
            secret,
            "secret access key: short",
        ] {
            ignores("aws-key", text);
        }
    }

    proptest! {
        #[test]
        fn any_number_with_right_check_digits_is_found(body in prop::collection::vec(0_u32..10, 9), letters in "[0-9A-Z]{12}") {
            let first = check_digit(&body, 11);
            let second = check_digit(&[&body[..], &[first]].concat(), 11);
            let cpf: String = body.iter().chain([&first, &second]).map(ToString::to_string).collect();
            prop_assume!(cpf.bytes().any(|digit| digit != cpf.as_bytes()[0]));
            prop_assert_eq!(found("cpf", &format!("cpf {cpf}.")), [cpf]);
            let (values, _) = values(letters.as_bytes());
            let first = check_digit(&values[..12], 9);
            let second = check_digit(&[&values[..12], &[first]].concat(), 9);
            let cnpj = format!("{letters}{first}{second}");
            prop_assume!(cnpj.bytes().any(|sign| sign != cnpj.as_bytes()[0]));
            prop_assert_eq!(found("cnpj", &format!("cnpj {cnpj}.")), [cnpj]);
        }

        #[test]
        fn no_text_makes_a_detector_fail(text in r#"([0-9A-Z.@\\n/ "-]|bearer |eyJ|AKIA|secret_access_key|\PC){0,60}"#) {
            for (name, _) in DETECTORS {
                for part in found(name, &text) {
                    prop_assert!(!part.is_empty());
                }
            }
        }
    }
}
