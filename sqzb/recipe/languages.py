"""Codes of languages: those of ISO 639-1, and others whose sentences have rules."""

import difflib

# ISO 639-1.
_TWO_LETTERS = """
aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de
dv dz ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id
ie ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu
lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu
rm rn ro ru rw sa sc sd se sg sh si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to
tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu
"""
# Codes of Wikipedias that sentencex knows by the rules of a related language.
_OTHERS = """
abs ace acm ady aeb aln als anp arc arn arq ary arz ast atj avk awa azb bar bbc bcc bci bcl bgn bho
bjn blk bpy bqi btm bug bxr cbk-zam cdo ceb ckb co crh crs csb diq dsb dtp dty egl eml ext fit
fiu-vro fon frc frp frr fur gag gan gcf gcr glk gom gor got gsw guc hak haw hif hrx hsn hsb hyw iba
ilo inh jam jut kaa kab kbd kbp kea khw kiu kjh kjp koi krc krl ksh ksw kum lad lbe lez lfn lij liv
lki lld lmo loz lrc ltg luz lzh lzz mad mag mai map-bms mdf mhr min mnc mnw mrj mui mwl myv mzn nah
nan nap nds nds-nl new nia nrm nso nyn olo pag pam pap pcd pcm pdc pdt pfl pms pnb pnt qug rgn rmy
roa-rup roa-tara rsk rue ruq sah sat scn sco sdc sdh ses sgs shi shn shy simple sjd sli smn srn srq
sty szl szy tay tcy tet tpi tru tum tyv udm vec vep vls vmf vot vro war wuu xal xmf yue zea zgh
be-tarask de-at de-ch en-gb en-us es-419 es-mx fr-ca pt-br pt-pt sr-cyrl sr-latn zh-classical zh-cn
zh-hans zh-hant zh-hk zh-min-nan zh-mo zh-my zh-sg zh-tw zh-yue
"""
LANGUAGES = frozenset(f"{_TWO_LETTERS} {_OTHERS}".split())


def unknown_language(code: str) -> str | None:
    """Return why a text is no code of a language; None if it is one."""
    if code in LANGUAGES:
        return None
    near = difflib.get_close_matches(code.lower().replace("_", "-"), sorted(LANGUAGES), n=1)
    meant = f"; did you mean {near[0]}?" if near and len(code) < 8 else ""
    return f"{code!r} is no language code, such as en, de or zh{meant}"
