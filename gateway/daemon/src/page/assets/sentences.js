"use strict";
// The sentences of the decision order in Chinese. The gateway says them in English (gateway/core/src/why/walk.rs), with {} for
// what it fills in; a test holds that each of them stands here. What is not known stays as it was said.
const SENTENCES = {
  "a lease of epoch {} covers it: granted without credit risk": "纪元 {0} 的租约额度足够：已授权，没有信用风险",
  "a one-time code of account {}": "账户 {0} 的一次性验证码",
  "an error {} came after {}, unsigned: evidence about the cloud, no authority over the token": "{1}后收到错误 {0}，没有签名：只说明云端有问题，不能否定这张卡",
  "full caps": "全额限额",
  "granted: {}": "已授权：{0}",
  "half caps": "减半限额",
  "it allows less than the least that can be sold": "允许的金额低于最低可售量",
  "it has a date, and no clock here is good enough to judge it": "它有日期限制，而本地时钟不足以判断",
  "it was issued for another site, device, kind or currency than this {}": "它是为其他站点、设备、种类或币种签发的，不适用于此{0}",
  "its time has not come, or is over": "尚未生效，或已过期",
  "keypad token {} of this device": "本设备的按键码 {0}",
  "known": "已知的卡",
  "no lease of this account": "该账户没有租约额度",
  "no policy NEVER": "没有“必须询问云端”的规定",
  "no voucher or code": "没有凭证或验证码",
  "nobody here has ever seen this token": "本站点从未见过此卡",
  "nobody here has seen this token, and the operator pays": "本站点从未见过此卡，由运营方付款",
  "nobody here has seen this token: at most {} of this day's emergency credit, the operator pays": "本站点从未见过此卡：当日应急额度至多 {0}，由运营方付款",
  "nobody here has seen this token: the policy of revision {} gives at most {} away now, the operator pays": "本站点从未见过此卡：限额版本 {0} 现在至多赠送 {1}，由运营方付款",
  "not revoked (revocations of revision {})": "未被吊销（吊销名单版本 {0}）",
  "not revoked: there are no revocations yet": "未被吊销：尚无吊销名单",
  "refused: {}": "已拒绝：{0}",
  "request {} of {} in this minute, and no other session of this token is open": "这一分钟内第 {0} 次请求（上限 {1} 次），此卡没有其他进行中的会话",
  "the balance was {} when the list was made, and {} are spent or held since: less is left than the least that can be sold": "名单生成时余额为 {0}，此后已用或预留 {1}：剩余金额低于最低可售量",
  "the cloud accepted this token {} ago": "云端在{0}前许可过此卡",
  "the cloud accepted this token {} ago, at most {} count: granted unsecured, {}": "云端在{0}前许可过此卡（{1}内有效）：已授权，有风险，{2}",
  "the cloud accepted this token {} ago, longer than {}": "云端在{0}前许可过此卡，已超过{1}",
  "the cloud did not answer within {}": "云端在{0}内没有答复",
  "the cloud is not asked": "不询问云端",
  "the cloud is not asked: authorize is {}, and nobody waits for it": "不询问云端：授权处于“{0}”，无需等待",
  "the cloud is not asked: the policy is {}": "不询问云端：此卡的规定是 {0}",
  "the cloud never accepted this token before": "云端此前从未许可过此卡",
  "the cloud refused this token before, with a newer credential than ours": "云端此前已拒绝此卡，并出示了比本地更新的凭据",
  "the cloud said no after {}, and nothing here speaks for the token": "云端在{0}后拒绝，本地也没有支持此卡的依据",
  "the cloud said no after {}, but showed nothing newer than credential revision {}, which is good: evidence, not authority": "云端在{0}后拒绝，但没有出示比凭据版本 {1} 更新的内容，而该版本有效：只作参考，不作依据",
  "the cloud said no after {}, with a newer credential than ours": "云端在{0}后拒绝，并出示了比本地更新的凭据",
  "the cloud said no, showed nothing newer, and answered both its canaries right after {}: followed this once": "云端拒绝，没有出示更新的内容，但在{0}后两个测试问题都答对：这一次照办",
  "the cloud said something after {} that this version does not know": "云端在{0}后的答复，本版本不认识",
  "the cloud said yes after {}": "云端在{0}后许可",
  "the device and its outlet can serve, and there is a price": "设备和接口可以服务，并且有价格",
  "the device ended the request before there was a decision": "设备在决定之前结束了请求",
  "the device or its outlet is faulted, updating, or not one of this site": "设备或接口有故障、正在升级，或不属于本站点",
  "the disk's reserve is reached: nothing unsecured until there is room": "磁盘只剩保留空间：腾出空间之前不再开始有风险的会话",
  "the list of revision {}, {} old,": "名单版本 {0}（{1}前）",
  "the outlet is kept free for somebody else, by the operator's order": "按运营方的指令，此接口为他人保留",
  "the policy is NEVER: only the cloud may say yes, and it did not": "此卡必须由云端许可，而云端没有许可",
  "the token is revoked (revocations of revision {})": "此卡已被吊销（吊销名单版本 {0}）",
  "there is no list yet": "尚无名单",
  "there is no price for a {} (tariffs of revision {})": "{0}没有价格（价格版本 {1}）",
  "this token began a session at another device a moment ago: nobody walks that fast": "此卡刚刚在另一台设备上开始了会话：没有人走得这么快",
  "this token began {} within an hour; {} are allowed": "此卡一小时内已开始 {0}，上限为 {1} 次",
  "this token drew {} at a {} in this outage already; {} are allowed without the cloud": "此卡在这次中断期间已在{1}使用 {0}，没有云端时上限为 {2} 次",
  "this token drew {} of {} in this outage already: less is left than the least that can be sold": "此卡在这次中断期间已用 {0}（上限 {1}）：剩余金额低于最低可售量",
  "this token has another session open at a {}": "此卡在{0}已有进行中的会话",
  "this token was presented {} in this minute already; {} are allowed": "此卡这一分钟内已出示 {0}，上限为 {1} 次",
  "this voucher, keypad token or code was used before: nothing is left of it": "此凭证、按键码或验证码已使用过，没有余额",
  "too many wrong ones were tried here: nothing is judged until the wait is over": "此处输错次数过多：等待结束之前不再受理",
  "voucher {}": "凭证 {0}",
  "what is left of the voucher or code is less than the least that can be sold": "凭证或验证码的剩余金额低于最低可售量",
  "what was presented proves nothing: signature, digits or code fit no key of this place; forged, damaged or mistyped": "出示的内容不能证明任何事：签名、数字或验证码与此处的密钥不符；可能是伪造、损坏或输错",
  "{} does not decide": "{0}不能决定",
  "{} does not name this token": "{0}中没有此卡",
  "{} has this token as blocked": "{0}中此卡已禁用",
  "{} has this token as valid ({})": "{0}中此卡有效（{1}）",
  "{} has this token as valid ({}): granted unsecured, {}": "{0}中此卡有效（{1}）：已授权，有风险，{2}",
  "{} has this token, but past its end": "{0}中有此卡，但已过有效期",
  "{} is older than {}: too old for credit": "{0}已超过{1}：过旧，不能赊账",
  "{} is too old for credit": "{0}过旧，不能赊账",
  "{} names this token with policy NEVER": "{0}规定此卡必须询问云端",
  "{} of the site's budget of {} are at risk already: less is left than the least that can be sold": "本站点的风险额度 {1} 已用 {0}：剩余金额低于最低可售量",
  "{} proves itself, is bound to this place and in date: granted up to {}, which is what is left of it": "{0}有效，属于此处且在有效期内：至多授权 {1}，即其余额",
  "{}, but {}": "{0}，但{1}",
  "{}: granted": "{0}：已授权",
  "{}: the device was alone, verified it and granted up to {} by itself; the hold was booked when it told": "{0}：设备当时独立运行，自行验证并至多授权 {1}；上报后已记入预留",
};
// Short words that stand inside the sentences.
const INSIDE = { charger: "充电桩", washer: "洗衣机", dispenser: "饮水机", "no limit": "无上限", ONLINE: "云端正常", SUSPECT: "存疑", LOCAL: "不靠云端", RECOVERING: "检验中" };
const UNITS = { ms: "毫秒", s: "秒", min: "分钟", h: "小时", d: "天", session: "次会话", sessions: "次会话", time: "次", times: "次", cycle: "次", cycles: "次", kWh: "千瓦时", L: "升" };
// What stands first, or behind "but", is a sentence of its own; everything else is a word or a number.
const WHOLE = (found) => found.replace("{}", "(.+?)");
const fixed = (template) => template.replaceAll("{}", "").length;
const PATTERNS = Object.entries(SENTENCES)
  .sort(([one], [other]) => fixed(other) - fixed(one))
  .map(([english, chinese]) => [new RegExp(`^${english.replace(/[.*+?^$()|[\]\\]/g, "\\$&").replace(/^{}|but {}/g, WHOLE).replaceAll("{}", "([^,:]+)")}$`), chinese]);
// A sentence of the gateway in Chinese; null if it is none that is known.
function inChinese(text) {
  for (const [pattern, chinese] of PATTERNS) {
    const found = pattern.exec(text);
    if (found) return chinese.replace(/\{(\d)\}/g, (_, i) => inside(found[Number(i) + 1]));
  }
  return null;
}
function inside(text) {
  return INSIDE[text] ?? inChinese(text) ?? text.replace(/(\d) ?(ms|s|min|h|d|sessions?|times?|cycles?|kWh|L)(?= |$)/g, (_, digit, unit) => `${digit} ${UNITS[unit]}`);
}
