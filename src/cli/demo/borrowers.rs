//! Made-up borrowers: plausible, valid by every check digit, and nobody's.

/// A borrower that does not exist.
pub struct Borrower {
    /// The lender's own id of the borrower.
    pub customer: String,
    name: String,
    /// A valid ID card number.
    pub id_card: String,
    mobile: String,
    bank_card: String,
    email: String,
    address: String,
    product: &'static str,
}

const SURNAMES: [&str; 16] =
    ["王", "李", "张", "刘", "陈", "杨", "赵", "黄", "周", "吴", "徐", "孙", "欧阳", "司马", "诸葛", "上官"];
const GIVEN: [&str; 16] =
    ["伟", "芳", "娜", "秀英", "敏", "静", "丽", "强", "磊", "洋", "艳", "勇", "建国", "晓明", "志远", "雨桐"];
const REGIONS: [&str; 8] = ["110105", "310104", "440305", "330106", "510107", "420106", "320508", "610113"];
const STREETS: [&str; 8] = [
    "北京市朝阳区建国路",
    "上海市徐汇区漕溪北路",
    "深圳市南山区科苑路",
    "杭州市西湖区文三路",
    "成都市武侯区人民南路",
    "武汉市武昌区中南路",
    "苏州市姑苏区人民路",
    "西安市雁塔区小寨东路",
];
const PRODUCTS: [&str; 4] = ["mortgage", "car loan", "consumer loan", "working capital"];

/// Borrowers without end, the same ones on every run.
pub fn all() -> impl Iterator<Item = Borrower> {
    let mut draw = Draw(0x5eed);
    (0..).map(move |number| borrower(number, &mut draw))
}

/// The first of them.
pub fn sample(count: usize) -> Vec<Borrower> {
    all().take(count).collect()
}

/// The file that a lender might have.
pub fn csv(borrowers: &[Borrower]) -> String {
    let mut text = String::from("customer,name,id_card,mobile,bank_card,email,address,product\n");
    for one in borrowers {
        let cells = [&one.customer, &one.name, &one.id_card, &one.mobile, &one.bank_card, &one.email, &one.address];
        for cell in cells {
            text.push_str(cell);
            text.push(',');
        }
        text.push_str(one.product);
        text.push('\n');
    }
    text
}

fn borrower(number: usize, draw: &mut Draw) -> Borrower {
    let (surname, given) = (draw.one_of(&SURNAMES), draw.one_of(&GIVEN));
    Borrower {
        customer: format!("cust-{number:04}"),
        name: format!("{surname}{given}"),
        id_card: id_card(number, draw),
        mobile: format!("13{}{:08}", draw.below(10), draw.below(100_000_000)),
        bank_card: bank_card(draw),
        email: format!("borrower{number:04}.{:06}@mail.example", draw.below(1_000_000)),
        address: format!("{}{}号{}室", draw.one_of(&STREETS), 1 + draw.below(999), 101 + draw.below(2_000)),
        product: draw.one_of(&PRODUCTS),
    }
}

/// GB 11643: region, birth date, sequence, check character.
fn id_card(number: usize, draw: &mut Draw) -> String {
    const WEIGHTS: [u32; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
    let born = format!("{:04}{:02}{:02}", 1955 + draw.below(48), 1 + draw.below(12), 1 + draw.below(28));
    let body = format!("{}{born}{:03}", draw.one_of(&REGIONS), number % 1_000);
    let sum: u32 = body.bytes().zip(WEIGHTS).map(|(digit, weight)| u32::from(digit - b'0') * weight).sum();
    let check = b"10X98765432"[(sum % 11) as usize];
    format!("{body}{}", char::from(check))
}

/// ISO/IEC 7812: issuer, account, Luhn's check digit.
fn bank_card(draw: &mut Draw) -> String {
    let body = format!("622202{:09}", draw.below(1_000_000_000));
    let doubled = |(place, digit): (usize, u8)| {
        let digit = u32::from(digit - b'0') * if place % 2 == 0 { 2 } else { 1 };
        digit / 10 + digit % 10
    };
    let sum: u32 = body.bytes().rev().enumerate().map(doubled).sum();
    format!("{body}{}", (10 - sum % 10) % 10)
}

/// A small generator (SplitMix64) with a fixed seed: sample data, nothing secret.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn one_of(&mut self, choices: &[&'static str]) -> &'static str {
        choices[self.below(choices.len() as u64) as usize]
    }
}
