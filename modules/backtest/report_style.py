"""The report's style sheet: two palettes (light, dark), one column on a phone, two on a desk. Nothing is loaded from anywhere."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root{color-scheme:light dark;--bg:#f5f6f8;--card:#fff;--ink:#171b24;--soft:#5d6675;--rule:#e3e6ec;--grid:#eceef2;--zero:#b9c0cb;
--in:#8b95a7;--out:#1d6fdc;--good:#0b8f62;--bad:#cf4436;--warn:#b77700;--good-bg:#e0f4ec;--bad-bg:#fbe6e3;--warn-bg:#fbf0d9;
--shade:#1d6fdc12;--shadow:0 1px 2px #10182812,0 6px 20px -12px #10182833}
@media (prefers-color-scheme:dark){:root{--bg:#0d1016;--card:#161b24;--ink:#e8ebf1;--soft:#98a2b3;--rule:#272e3b;--grid:#202632;
--zero:#4d586b;--in:#7c889c;--out:#5ea2ff;--good:#3ecf9a;--bad:#ff7a6b;--warn:#f0b64d;--good-bg:#12352b;--bad-bg:#3c1d1a;
--warn-bg:#38290f;--shade:#5ea2ff14;--shadow:none}}
*{box-sizing:border-box}html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif;
font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
table{overflow-wrap:normal}
main{max-width:1180px;margin:0 auto;padding:28px 22px 60px}
h1{font-size:26px;letter-spacing:-.02em;margin:0 0 2px;line-height:1.2}h2{font-size:21px;letter-spacing:-.01em;margin:0}
h3{font-size:14px;margin:0 0 2px;font-weight:650}p{margin:0}.soft{color:var(--soft)}.small{font-size:13px}
code{font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;background:var(--grid);border-radius:5px;padding:2px 6px;
overflow-wrap:anywhere}
a{color:inherit;text-decoration-color:var(--zero);text-underline-offset:3px}
.card{background:var(--card);border:1px solid var(--rule);border-radius:14px;padding:16px 18px;box-shadow:var(--shadow);min-width:0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:20px 0}
.tile b{display:block;font-size:28px;line-height:1.15;letter-spacing:-.02em}.tile span{color:var(--soft);font-size:13px}
.badge{display:inline-block;border-radius:99px;padding:3px 11px;font-size:12px;font-weight:680;letter-spacing:.02em;white-space:nowrap}
.approved{color:var(--good);background:var(--good-bg)}.rejected{color:var(--bad);background:var(--bad-bg)}
.insufficient{color:var(--warn);background:var(--warn-bg)}
.section{margin-top:44px;padding-top:26px;border-top:1px solid var(--rule);scroll-margin-top:10px}
.head{display:flex;flex-wrap:wrap;align-items:center;gap:10px 14px;margin-bottom:8px}
.verdict{margin:12px 0 16px;border-left:4px solid var(--zero)}.verdict.is-approved{border-left-color:var(--good)}
.verdict.is-rejected{border-left-color:var(--bad)}.verdict.is-insufficient{border-left-color:var(--warn)}
.verdict p+p{margin-top:6px}
.grid{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:14px}.wide{grid-column:1/-1}
.key{display:flex;flex-wrap:wrap;gap:2px 16px;color:var(--soft);font-size:12.5px;margin:0 0 8px}
.key i{display:inline-block;width:16px;height:0;border-top:3px solid;border-radius:2px;vertical-align:middle;margin-right:6px}
.k-in{color:var(--in)}.k-out{color:var(--out)}.k-good{color:var(--good)}.k-bad{color:var(--bad)}.key span{color:var(--soft)}
.chart{display:grid;grid-template-columns:54px 1fr;grid-template-rows:minmax(0,1fr) 20px;height:230px}.chart.low{height:110px}
.chart.tall{height:290px}.chart.mini{height:104px;grid-template-columns:42px 1fr}
.left,.below,.plot{position:relative;min-width:0;min-height:0}.left span{position:absolute;right:8px;transform:translateY(-50%);
color:var(--soft);font-size:11.5px;
white-space:nowrap}
.below{grid-column:2}.below span{position:absolute;top:4px;transform:translateX(-50%);color:var(--soft);font-size:11.5px;
white-space:nowrap}
.below span.first,.plot b.first{transform:none}.below span.last,.plot b.last{transform:translateX(-100%)}
.plot svg{width:100%;height:100%;display:block;overflow:visible}
.plot>b{position:absolute;top:2px;transform:translateX(-50%);font-size:11.5px;font-weight:650;background:var(--card);padding:0 5px;
border-radius:4px;white-space:nowrap;z-index:1}
svg *{vector-effect:non-scaling-stroke}svg path,svg polyline{fill:none;stroke-linejoin:round;stroke-linecap:round}
path.rung{stroke:var(--grid)}path.zero{stroke:var(--zero)}
.in{stroke:var(--in);stroke-width:1.4}.out{stroke:var(--out);stroke-width:2}.price{stroke:var(--in);stroke-width:1.1}
.fall-in{fill:var(--in);opacity:.28}.fall-out{fill:var(--out);opacity:.35}.test{fill:var(--shade)}
.bar{fill:var(--in);opacity:.55}.bar.beyond{fill:var(--bad)}.mark-out{stroke:var(--out);stroke-width:2.4}
.mark-bad{stroke:var(--bad);stroke-width:1.6;stroke-dasharray:5 4}.mark-soft{stroke:var(--zero);stroke-dasharray:3 4}
.dot{stroke-width:6}.dot.set{stroke:var(--in);opacity:.45}.dot.best{stroke:var(--out);stroke-width:11}
.won{stroke:var(--good);stroke-width:1.7}.lost{stroke:var(--bad);stroke-width:1.7}.dot.long{stroke:var(--good);stroke-width:7}
.dot.short{stroke:var(--bad);stroke-width:7}.t-out{color:var(--out)}.t-bad{color:var(--bad)}.t-soft{color:var(--soft)}
.card.scroll{margin:0;padding-left:12px;padding-right:12px}.scroll{overflow-x:auto;-webkit-overflow-scrolling:touch;margin-left:-6px;
margin-right:-6px;padding:0 6px}
table{border-collapse:collapse;width:100%;font-size:13.5px}th{font-weight:600;color:var(--soft);font-size:12px;text-align:left;
border-bottom:1px solid var(--rule);padding:6px 8px;white-space:nowrap}
td{padding:6px 8px;border-bottom:1px solid var(--grid);vertical-align:top}tr:last-child td{border-bottom:0}
td.n,th.n{text-align:right;white-space:nowrap}td.mark{width:22px;font-weight:700}.yes{color:var(--good)}.no{color:var(--bad)}
.heat th:first-child{width:1%}.months td,.heat td{padding:0;border:0}.months th,.heat th{border:0;padding:4px 6px}
.cell{position:relative;text-align:center;font-size:12px;padding:5px 2px;border-radius:6px;margin:1px;min-width:42px;isolation:isolate}
.cell::before{content:"";position:absolute;inset:0;border-radius:inherit;background:var(--good);opacity:var(--o);z-index:-1}
.cell.minus::before{background:var(--bad)}.cell.best{outline:2.5px solid var(--out);outline-offset:-2px;font-weight:700}
.minis{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:8px 12px;margin-top:12px}
.minis h4{font-size:12px;margin:0;color:var(--soft);font-weight:600}
.empty{color:var(--soft);padding:26px 8px;text-align:center;font-size:13.5px}
footer{margin-top:44px;color:var(--soft);font-size:12.5px}
@media (max-width:760px){main{padding:18px 12px 40px}h1{font-size:22px}.grid{grid-template-columns:minmax(0,1fr)}.card{padding:14px 13px;
border-radius:12px}.tile b{font-size:23px}.tiles{grid-template-columns:repeat(2,1fr);gap:8px}.chart{grid-template-columns:44px 1fr;
height:200px}.badge{white-space:normal;border-radius:9px;padding:2px 8px;font-size:11px}.chart.tall{height:230px}.hide{display:none}
.left span{right:6px;font-size:11px}.sheet td:last-child{min-width:150px}}
@media print{.card{box-shadow:none;break-inside:avoid}}
"""
