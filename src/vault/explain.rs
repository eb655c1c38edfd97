//! Asks how policy would decide for somebody in given circumstances, why, and what would be allowed instead.

use std::str::FromStr;

use strongroom_access::{
    Action, Consent, Context, MAX_APPROVALS, Principal, Query, Resource, Role, SecondFactor, UnknownName,
};
use strongroom_schema::Field;
use strongroom_storage::Store;

use crate::decide::resource_of;
use crate::error::Error;
use crate::reading::lists;
use crate::road::{Attempt, Prepared, Refused, Road};

/// Bytes of the name of a principal or of an actor's role, at most.
const NAME_LIMIT: usize = 64;

/// Asks how policy would decide for somebody.
#[derive(Default)]
pub struct Explain {
    /// The role of who would ask.
    pub role: String,
    /// Its name, if policies name principals; may be empty.
    pub name: String,
    /// What would be asked.
    pub action: String,
    /// The field; empty for actions on the vault itself.
    pub field: String,
    /// The view; may be empty.
    pub view: String,
    /// The purpose; may be empty.
    pub purpose: String,
    /// `I`, `II` or `III`; empty for the one that the principal has.
    pub tier: String,
    /// The role of the person on whose behalf it would be asked; may be empty.
    pub actor_role: String,
    /// Whose case the data subject is: `none`, `own` or `other`; empty for none.
    pub case_load: String,
    /// `absent`, `fresh` or `bound`; empty for absent.
    pub second_factor: String,
    /// What the data subject has to say: `not_needed`, `standing` or `absent`; empty for absent if the purpose rests on
    /// consent.
    pub consent: String,
    /// The hour of the day, 0 to 23, UTC; none for this one.
    pub hour: Option<u32>,
    /// How many others would have approved.
    pub approvals: u32,
}

/// How policy would decide, and why.
pub struct Explanation {
    /// Whether it would be allowed.
    pub allowed: bool,
    /// The policies that decide.
    pub policies: Vec<String>,
    /// In words.
    pub text: String,
    /// The views that would be allowed for that purpose.
    pub allowed_views: Vec<String>,
    /// The purposes for which it would be allowed.
    pub allowed_purposes: Vec<String>,
    /// Of what is denied: with so many approvals in all it would be allowed, and with the second factor that is named
    /// beside it; 0 if it needs none more, or none would help.
    pub allowed_approvals: u8,
    /// Of what is denied: the least second factor with which it would be allowed, with the approvals that are named
    /// beside it; empty if it needs no other, or none would help.
    pub allowed_second_factor: &'static str,
    /// Of what is denied: whether it would be allowed if the subject's consent stood.
    pub allowed_with_consent: bool,
}

/// What is asked, read.
struct Question<'r> {
    principal: Principal,
    action: Action,
    field: Option<&'r Field>,
    context: Context<'r>,
}

impl Question<'_> {
    /// The same in another context.
    fn query<'q>(&'q self, context: Context<'q>) -> Query<'q> {
        let resource = self.field.map_or(Resource::Vault, resource_of);
        Query { principal: &self.principal, action: self.action, resource, context }
    }
}

fn given(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// One of a fixed list of names; empty for what goes without saying.
fn named<T: FromStr<Err = UnknownName> + Default>(path: &str, name: &str) -> Result<T, Error> {
    let Some(name) = given(name) else { return Ok(T::default()) };
    // What was sent is not repeated: the known names are enough.
    name.parse()
        .map_err(|UnknownName { known, .. }| Error::invalid(path, "name_unknown", format!("it is one of {known}")))
}

impl Explain {
    fn read<'r, S: Store>(&'r self, road: &'r Road<'_, S>) -> Result<Question<'r>, Error> {
        let unknown = |path: &str, rule, what: &str| Error::invalid(path, rule, what);
        let role: Role = self.role.parse().map_err(|_| {
            unknown("role", "role_unknown", "the roles are app, rotator, auditor, privacy, officer, operator")
        })?;
        let action: Action = self
            .action
            .parse()
            .map_err(|_| unknown("action", "action_unknown", "no such action: tokenize, detokenize, ..."))?;
        for (path, name) in [("name", &self.name), ("actor_role", &self.actor_role)] {
            if name.len() > NAME_LIMIT {
                return Err(Error::invalid(path, "too_long", format!("a name has at most {NAME_LIMIT} bytes")));
            }
        }
        let field = match given(&self.field) {
            None => None,
            Some(name) => {
                let field = road.schema.field(name);
                Some(&**field.ok_or_else(|| unknown("field", "field_unknown", "no such field in the schema"))?)
            }
        };
        let at = match self.hour.map(u8::try_from) {
            None => Context::new(road.now),
            Some(Ok(hour @ 0..24)) => Context::at_hour(hour),
            Some(_) => return Err(unknown("hour", "hour", "an hour of the day is 0 to 23, UTC")),
        };
        let approvals = u8::try_from(self.approvals).ok().filter(|approvals| *approvals <= MAX_APPROVALS);
        let approvals = approvals.ok_or_else(|| {
            Error::invalid("approvals", "too_many", format!("policy sees {MAX_APPROVALS} approvals at most"))
        })?;
        let principal = Principal::new(road.tenant.number, role, given(&self.name).unwrap_or("anyone"));
        let context = at
            .purpose(given(&self.purpose))
            .view(given(&self.view))
            .tier(match given(&self.tier) {
                // The one that it has.
                None => road.rules.tiers.of(&principal.name),
                Some(_) => named("tier", &self.tier)?,
            })
            .actor_role(given(&self.actor_role))
            .case_load(named("case_load", &self.case_load)?)
            .second_factor(named("second_factor", &self.second_factor)?)
            .approvals(approvals);
        Ok(Question { principal, action, field, context })
    }

    /// What policy is told of the subject's consent under a purpose.
    fn consent<S: Store>(&self, road: &Road<'_, S>, purpose: Option<&str>) -> Result<Consent, Error> {
        match given(&self.consent) {
            None if purpose.is_some_and(|name| road.rests_on_consent(name)) => Ok(Consent::Absent),
            None => Ok(Consent::NotNeeded),
            Some(_) => named("consent", &self.consent),
        }
    }
}

impl<S: Store> Attempt<S> for Explain {
    type Answer = Explanation;
    const ACTION: Action = Action::ExplainPolicy;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Explanation>, Refused> {
        road.decide_vault()?;
        let question = self.read(road)?;
        let (access, purpose) = (&road.tenant.access, given(&self.purpose));
        let consent = self.consent(road, purpose)?;
        let context = match question.field {
            None => question.context,
            Some(field) => question.context.class(field.class.as_str()).consent(consent),
        };
        let asked = access.explain(&question.query(context));
        let listed = question.field.zip(purpose).is_none_or(|(field, purpose)| lists(field, purpose));
        let allowed = asked.allowed && listed;
        let would = |context: Context<'_>| !allowed && listed && access.decide(&question.query(context)).allowed;
        let missing = asked.missing.filter(|_| listed);
        let mut answer = Explanation {
            allowed,
            policies: asked.policies,
            text: match listed {
                true => asked.text,
                false => "the schema does not list this purpose for the field".to_owned(),
            },
            allowed_views: vec![],
            allowed_purposes: vec![],
            allowed_approvals: missing.map_or(0, |missing| missing.approvals),
            allowed_second_factor: missing.and_then(|missing| missing.second_factor).map_or("", SecondFactor::as_str),
            allowed_with_consent: question.field.is_some()
                && consent == Consent::Absent
                && would(context.consent(Consent::Standing)),
        };
        if let Some(field) = question.field.filter(|_| question.action == Action::Detokenize) {
            let may = |view: &str, purpose: &str| {
                let consent = self.consent(road, Some(purpose)).unwrap_or(Consent::Absent);
                let context = context.view(Some(view)).purpose(Some(purpose)).consent(consent);
                access.decide(&question.query(context)).allowed
            };
            let views: Vec<&str> = field.views().map(|(name, _)| &**name).collect();
            if let Some(purpose) = purpose.filter(|_| listed) {
                let allowed = views.iter().filter(|view| may(view, purpose));
                answer.allowed_views = allowed.map(|view| (*view).to_owned()).collect();
            }
            for purpose in &field.purposes {
                // A decision that nobody has taken yet takes its time, and there may be one for each view.
                tokio::task::yield_now().await;
                if views.iter().any(|view| may(view, purpose)) {
                    answer.allowed_purposes.push(purpose.to_string());
                }
            }
        }
        Ok(road.prepare(answer))
    }
}
