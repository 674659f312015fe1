"""Why a mutant need not be noticed: where it is, what the line became, and the reason. Both are patterns.

What does not belong here: a reason for a check that is gone or off by one. That takes a test.
"""

import re

REASONS: tuple[tuple[str, str, str], ...] = (
    # words
    (
        "",
        r"(expect_(subset|threshold|ascending|size|items)|reconstruct)\(.*['\"](XX|[A-Z][A-Z _-]+['\"])",
        "a name that stands in the words of an error only",
    ),
    (
        r"secagg\.messages\..*__post_init__",
        r"^for name in",
        "a name that is looked up: another one raises for every message",
    ),
    (
        r"updates\._names|plan\.(Infeasible|_reason)|stack\.Stack\.__post_init__|revealing\.ServerRevealing\.close",
        r"join\(|nothing|NOTHING|relax|RELAX|infeasible|^demand|^got =|^who =",
        "the words of an error; its type and cause are tested",
    ),
    (r"record\.RunRecord\.append", r"raise OSError", "the words of an error that is caught two lines below"),
    (r"expect_subset", r"\[:6\]", "how many strangers the words of an error list"),
    (
        r"errors\.DealerBlamed|unmasking\.unmask|taking_off\.take_off",
        r"DealerBlamed\(.*['\"](XX|SELF|MASK)",
        "the words of an error; whom it names is tested",
    ),
    # the same by another way
    ("", r"'SHA256'|'UTF-8'|'INF'", "another spelling of the same name"),
    ("", r"copy=(None|True)|astype\('<u2'\)|astype\(np\.uint16\)", "copying or not changes speed only"),
    (
        r"secagg\.shamir\._points",
        r"^ascending|places\[",
        "the quick way to see that points are distinct; the slow one behind it decides",
    ),
    (r"protocols\.sealing\.unseal", r"<= OVERHEAD", "an empty box does not open either way"),
    (r"protocols\.key_agreement\.info", r"first < second", "one name with itself has one order"),
    (r"unmasking\._masks|masking\.masked", r"<= ", "a client is no neighbour of itself"),
    (
        r"server\.opening|plain\.Waiting",
        r"(came|waiting|arrived)\[\w+\] = False",
        "the keys are looked at, the values are not",
    ),
    (
        r"opening\.ServerOpening\._keep",
        r"> (self\.rules\.)?threshold",
        "one share more gives the same secret",
    ),
    (
        r"collecting\.Collecting\.close",
        r"alone = None",
        "what every holder refuses is asked for and refused: no total either way",
    ),
    (r"messages\.Released", r"strict=True", "refused in either case, with other words"),
    (r"server\.opening\.pledged", r"return b'XXXX'", "neither is the digest of anything"),
    (
        r"masking\.Masking\._open|guarding\.Guarding\._open",
        r"str\(None\)",
        "the error is caught here; the complaint names the dealer",
    ),
    (
        r"unmasking\.unmask|certified_keys|advertising\.Advertising\.close|revealing\.ServerRevealing\.receive",
        r"(parse|certified)\(.*(str\(None\)|'XXXX')",
        "these keys were parsed, with their owner's name, when they came",
    ),
    (
        r"quantise\.Quantiser\.(encode|decode)",
        r"np\.asarray\(|astype\(None\)",
        "callers pass that dtype already",
    ),
    (
        r"quantise\.Quantiser|stack\.Numbers",
        r"<= 33",
        "the same range is checked a second time, where the quantiser is made",
    ),
    (
        r"quantise\.Quantiser\.__post_init__",
        r"0 <= self\.step|<= math\.inf",
        "zero and infinity are no powers of two",
    ),
    (
        r"stack\.RoundPlan\.(encode|_digits)|stack\._block",
        r"None\)|np\.asarray\(vector\)|np\.array\(\[[^\]]*\]\)|np\.zeros\(c\.size|np\.asarray\(coordinates",
        "whole numbers of 64 bits either way",
    ),
    (r"stack\.RoundPlan\._digits", r"value / base", "the fraction is cut off where it becomes whole"),
    (
        r"stack\.RoundPlan\.digest",
        r"quantiser else 1|quantiser and False|self\.quantiser\.step if",
        "without a quantiser its bits are a constant, and the step is the signal's",
    ),
    (
        r"summation\.centred",
        r"copy|astype|modulus (==|\|)|modulus & modulus",
        "powers of two may take the general way too",
    ),
    (r"summation\.centred", r"/ 2\)", "a whole number either way"),
    (
        r"updates\.(flatten|_reals)|packing\._(un)?pack_short|sharing\.ServerSharing\._mail",
        r"reshape\((None|-2)",
        "NumPy takes any negative length, or none, as the rest",
    ),
    (r"updates\._reals", r"or True", "a real array viewed as its own type"),
    (r"identity\.Identity\.load", r"4097", "a bound on what is read: a key has some hundred bytes"),
    (r"identity\.Identity\.save", r"write_atomic", "0600 is the default"),
    (
        r"identity\.SignedRoster\.(save|to_json)",
        r"421|json\.dumps",
        "how a file that people read is laid out, or a bit that executes nothing",
    ),
    (
        r"store\.base\.Transaction",
        r"XXXX|to_bytes\(9",
        "what is stored behind a mark or before a counter is not looked at",
    ),
    (r"record\.RunRecord\.append", r">= MAX_LINE", "a bound on the length of a line, one byte earlier"),
    (
        r"codec\.",
        r"count\(max\(|cls\._read, 1|count / ",
        "a larger count passes here and is refused when the bytes end; no more than those bytes is allocated",
    ),
    (
        r"secagg\.packing\._add_long",
        r"count =|octets\) - 8,\)",
        "fewer elements go through the compiled loop and more through the plain one; the loop checks no bounds",
    ),
    (
        r"secagg\.credentials\.Credentials\.simulated",
        r"XX|AUTHORITY|SIMULATED|str\(None\)|, 2, members",
        "labels of throwaway identities in a simulation",
    ),
    (
        r"secagg\.parameters\.calibration",
        r"['\"](XX\w+XX|[AB]|PLAN)['\"]",
        "names of the parties whose work is timed",
    ),
    # codec, sessions, records, sums
    (r"codec\._fields", r"schema = None", "worked out anew each time: speed only"),
    (
        r"record\.RunRecord\.close",
        r"> 0:|>= 1:|= -2",
        "any number below zero says closed, and no record is standard input",
    ),
    (
        r"record\._(parse|chain)",
        r"isinstance\(entry\.head|entry\.index != index and",
        "a field that is not what it seems does not fit the digest, which is checked next",
    ),
    (
        "",
        r"modulus & \(?(self\.)?modulus - 2",
        "from 2 on that is zero for the same numbers, the powers of two",
    ),
    (r"session\.Session", r"modulus >= 1 << 62", "2^62 is a power of two"),
    (r"simulate\._least_bound", r"default=1", "vectors without coordinates are refused a line later"),
    (
        r"checked_input|updates\._rule|ring\.Ring\.embed|reference\.like",
        r"'XXiuXX'",
        "the letters are found in the longer text too",
    ),
    (r"checked_input", r"astype\(np\.int64\)$", "copying or not changes speed only"),
    # stores
    (r"store\.file\.FileStore\.__init__", r"timeout: float=31", "how long a store waits by default"),
    (
        r"store\.files\._write_all",
        r"or True|cast\('b'\)",
        "casting an empty view, or to signed bytes, gives the same bytes",
    ),
    (r"store\.sealed\.Sealer\.open$", r"<= head", "without a tag nothing opens"),
    (
        r"store\.sealed\.Sealer\.open_anchor",
        r"!= ANCHOR_BYTES and",
        "an anchor of another length does not fit its tag, which is checked next",
    ),
    (r"store\.file\.FileStore\._create", r"b'XXXX'", "no state of version 0 has a digest to compare with"),
    (r"store\.file\.FileStore\._save", r"missing_ok=False", "the file was written a line above"),
    (
        r"store\.files\.prepare",
        r"O_NOFOLLOW\)$",
        "the mode is set on the next line, before anything is written",
    ),
    (
        r"store\.files\.prepare",
        r"O_EXCL & ",
        "the name was removed a line above; the flags guard against a race",
    ),
    (r"store\.files\.prepare", r"buffering=1|'wb'\) as", "the descriptor is written to, past any buffer"),
    (r"store\.files\.prepare", r"missing_ok=False", "an error of the tidying is passed over"),
    (r"store\.files\.sync_folder", r"O_RDONLY & ", "a guard: what is opened is the parent of a file"),
    # secagg
    (r"choose\._given", r"complete and False", "who asks for the complete graph has set no neighbours"),
    (r"masking\.Masking\._next", r"b'XXXX'\)", "signed survivors are looked at in the voted model only"),
    (r"commitments\.signer", r"Identity\('(XX|S)", "a name in the words of errors only"),
    (
        r"graph\.harary",
        r"half < place|place - step",
        "the range is symmetric, and the general way gives what the quick one gives",
    ),
    (r"kernels\.compiled", r"njit\(", "how it is compiled changes speed only"),
    (r"masking\.apply_masks", r"fill\(1\)", "the keystream is overwritten either way"),
    (r"messages\.pack_bits", r"= 2", "any number but zero is packed as one"),
    (
        r"packing\.(pack|add_packed)",
        r"65\)|len\(words\)|byteorder",
        "the three ways give the same bytes, tested against each other",
    ),
    (r"sharing\.ServerSharing\._deliveries", r"np\.array\(dealers", "wider numbers find the same places"),
    (r"memory\.ratchet", r"bytes\(33\)", "HMAC fills a shorter key with zeros (RFC 2104, section 2)"),
    (
        r"protocol\._MaskedSum\._insist",
        r"rules\.clients(, None)?\), rules",
        "threat and degree, which are compared, do not depend on the beacon",
    ),
    (
        r"protocol\._MaskedSum\._sparse",
        "self",
        "what an audit plays on: audits are judged by planted defects",
    ),
    (
        r"server\.enrolling",
        r"tuple\(asks\)\)$|collecting, asks(, memory=None)?\)|tuple\(asks\), memory=None",
        "kept again when the round closes; a server that dies in between makes a new set-up: a trip, no privacy",
    ),
    (r"rules\.Rules\.points", r"dtype=None|len\(holders\) \+ 1\)$", "whole numbers of 64 bits either way"),
    (
        r"rules\.(least_threshold|largest_threshold|least_window|largest_window)",
        r"degree \+ 2",
        "beyond the degree nothing is opened and everybody is too few: the search ends there",
    ),
    (r"rules\.rules_of", r"= None", "worked out anew each time: speed only"),
    (r"ring\.Ring\.centred", r"dtype", "signed words shift into signed words"),
    # plans
    (
        r"plan\.search",
        r"least, largest = \((1, 0|0, 1)\)|_threshold\(cohort, degree\)",
        "where a search starts; a test tries every start",
    ),
    (r"plan\._short", r"and False", "a smaller step tries more degrees and finds the same one"),
    (r"plan\._remedies", r"130", "how far the advice looks"),
    (r"rules\._first", r"step|known|bisect_left", "how a search closes in; where it ends is tested"),
    (
        r"rules\.(least_threshold|largest_threshold|least_window|largest_window)",
        r"max\(at_least|max\(LEAST_THRESHOLD, (degree|at_least)\b|degree // [23] [+-] 1|- 1\)?,|at_least: int=1",
        "a search that starts lower ends at the same place",
    ),
    (
        r"rules\.least_connected_degree",
        r"max\(n - k - 1, 2\)|< limit",
        "a margin at a single pair of places, or at the very limit",
    ),
    (r"costs\.costs", r"max\(2,", "a plan has three clients or more"),
    (
        r"costs\._size",
        r"client\(1\)|and False|or True",
        "either direction, and any client, take as many bytes",
    ),
    (
        r"calibration\.calibrate",
        r"share_digest\(context, (2, 2|1, 3)",
        "whose share is digested takes no other time",
    ),
    (r"calibration\._seconds", r"> ends", "the same but for one instant"),
    # tails
    (
        r"tails\.log_tail_at_least",
        r"least < low|least < _mode",
        "at that value both ways give the probability",
    ),
    (
        r"tails\._log_run_up",
        r"min\(drawn|\+ chunk, (marked|drawn)\)|3 \* chunk|last (<=|< 2)|[12]\.0 [+-] last|<= 1e-17|/ total|/ last",
        "how many terms are summed at once, and where the sum stops: what is left out is below the last digit",
    ),
    (r"tails\._log_complement", r">= -math|log\(3", "both ways are exact there"),
    (r"tails\._deviance", r"> 0\.1|1\.1 \*", "the series is exact farther out too, it takes longer"),
    (r"tails\._log_binomial", r"or True", "no trials times a finite logarithm"),
    (r"tails\._stirling", r"1189", "below the last digit from n = 16 on"),
    # rounds
    (
        r"fl\.round\.(contribution|counts|play|run_files)\.",
        r"np\.(array|asarray)\((\[value\]|\w+\.vector)(, None)?\)",
        "64 bits either way: what comes there is a float64 array, or a whole number, already",
    ),
    (
        r"fl\.round\.contribution\.clipped_where",
        r"< quantiser\.range",
        "at the range both ways find nothing clipped",
    ),
    (
        r"fl\.round\.broadcast\._noisy",
        r"XXthe stackXX|THE STACK",
        "a name that stands in the words of an error only",
    ),
    (
        r"fl\.round\.broadcast\._noisy",
        r"strict=True",
        "a plan has a signal more than layers, and the first is left out",
    ),
    (
        r"fl\.round\.manifest\.Manifest\.require_alike",
        r"XX|MANY CLIENTS|MADE FOR",
        "the words of an error; its type and cause are tested",
    ),
    (r"fl\.round\.play\._together", r"spent\[1\]", "where all are equal it is any of them"),
    (
        r"fl\.round\.play\._sums",
        r"engine, stack, None\)",
        "a session that is made again from what the server keeps is the same but for its nonce",
    ),
    (r"fl\.round\.play\._sums", r"XXnobody|NOBODY", "the words of an error; its type and cause are tested"),
    (r"fl\.round\.chain\.Chain\.remember", r"known = -2", "a chain without links is not remembered"),
    (r"fl\.round\.chain\.Chain\.remember", r"known <= ", "what is kept is written once more"),
    (r"fl\.round\.broadcast\._named", r"rule='(XXkeepXX|KEEP)'", "any one rule does: all have it"),
    (r"fl\.round\.buffers\.Buffers\.restore", r"rpartition", "these names have one stroke"),
    (
        r"fl\.round\.buffers\.require_manifest",
        r"default=1\)|default=None\)|values\(\)\)+ > own",
        "a manifest that names a chain names a version",
    ),
    (
        r"fl\.round\.run_files\.npz",
        r"ZipFile\(buffer, 'w'\)",
        "stored as it is, is the default of the library",
    ),
    (r"fl\.round\.run_files\.npz", r"\.npy', 'w'(, force_zip64=False)?\)", "for arrays of more than 2 GiB"),
    (r"fl\.round\.run_files\.read_npz", r"np\.load\(path\)", "nothing is unpickled by default"),
    (r"fl\.round\.run_files\.encode", r"bytes\(33\)", "one secret byte more hides as well"),
    (
        r"fl\.round\.run_files\.load",
        r"setdefault\(layer(, None)?\)\[key\]",
        "every layer is named there, also one that keeps arrays alone",
    ),
    (
        r"fl\.round\.run_files\.RunFiles\._write_metrics",
        r"allow_nan=True|dumps\(line_of\(result\)\)",
        "what is not finite is null in a line already",
    ),
    (
        r"fl\.round\.run_files\.RunFiles\._follow",
        r"indent=(None|3)|dumps\(kept\.statement\)",
        "how a file that people read is laid out, or a bit that executes nothing",
    ),
    (
        r"fl\.round\.reference\.tree_digest",
        r"reshape\((None|-2)",
        "NumPy takes any negative length, or none, as the rest",
    ),
    (r"fl\.round\.reference\.tree_digest", r"newbyteorder\('<'\)\)\)$", "copying or not changes speed only"),
    (r"fl\.round\.remarks\._sentences", r"default=None\)", "None is as little as zero there"),
    (r"fl\.round\.result\.require_total", r"'XXXX'\.join", "one at most is joined"),
    (r"fl\.round\.remarks\.Speaker", r"warn\(said(, stacklevel=5)?\)", "which line a warning names"),
    (
        r"fl\.round\.remarks\._sentences",
        r"^found\['(XX)?(clipped|capped|empty|CLIPPED|CAPPED|EMPTY)(XX)?'\] = (?!.*(XX[a-z]|[A-Z]{4} ))",
        "a kind is a name that is compared with itself",
    ),
    # correlated noise
    (
        r"correlated\.options\.Correlation\.require_turns",
        r"population / run",
        "a quotient is below a whole number where its floor is",
    ),
    (r"correlated\.options\.Correlation\.require_turns", r"split\(None\)", "the first word either way"),
    (r"correlated\.options\.Correlation\.require_turns", r"\[0\], 1\)", "a separation is at least 2"),
    (
        r"correlated\.options\.Correlation\.admit",
        r"np\.asarray\(shown",
        "numbers are compared, whatever their type",
    ),
    (
        r"correlated\.(patterns\.dearest|strategy\.(gain|_divided))",
        r"np\.(as)?array\((costs|strategy\.coefficients|lfilter\(.*\))(, None)?\)",
        "small whole numbers, or 64 bits already: exact either way",
    ),
    (r"correlated\.patterns\.dearest", r"size\), 1\.0\)$", "one more participation at least is looked at"),
    (
        r"correlated\.patterns\.dearest",
        r"2 \+ \(given|size \+ 1\)",
        "no pattern has more rows: a further turn finds the same",
    ),
    (
        r"correlated\.patterns\.sensitivity",
        r">= np\.count_nonzero",
        "the general way gives what the quick one gives",
    ),
    (r"correlated\.price\.Banded\.__post_init__", r"or 2", "what is not given is not below 1"),
    (
        r"correlated\.rows\.OpenedRows\.take",
        r"range\((row \+ 1|1, row \+ 2)\)",
        "no row before the first one or behind this one is kept",
    ),
    (r"correlated\.rows\.OpenedRows\.state", r"np\.zeros\(1\)", "of this entry the name is read alone"),
    (r"correlated\.slots\.slots", r"XXslotsXX|SLOTS", "the name under which it is kept is read here alone"),
    (
        r"correlated\.slots\.slots",
        r"XXdrawnXX|DRAWN",
        "what is stored behind a mark or before a counter is not looked at",
    ),
    (
        r"correlated\.strategy\.StrategyMatrix\.matrix",
        r"for row in rows\](, None)?\)",
        "whole numbers of 64 bits either way",
    ),
    (r"correlated\.strategy\.series", r"np\.eye\((2, )?rounds\)", "the first row is the same"),
    # noise
    (r"envelope\._alias_table", r"np\.full\(", "up to 2^53, exact in either type"),
    (r"analytic_gaussian_delta", r"min\(1\.0", "above zero by rounding only"),
    (
        r"analytic_gaussian_sigma",
        r"<= math\.inf|<= 1\)|< 2\)",
        "the search ends with a refusal too, in other words",
    ),
    (
        r"analytic_gaussian_sigma",
        r"= 2\.0$|\*= 3|/= 3|>= |epsilon\) < delta",
        "how a search closes in; where it ends is tested",
    ),
    (
        r"mechanisms\.",
        r"\.astype\(None\)$|astype\(None\)(\)\)?| / sigma| \* unit)$|dtype=None\)( / step\))?$",
        "NumPy's own choice here is the same type",
    ),
    (
        r"mechanisms\.",
        r"np\.arange\(([^()]|len\(weights\))*\)$|log1p\(u\) - u\)\)$",
        "NumPy's own choice here is the same type",
    ),
    (r"draw_poisson\.target", r"mean < _SMALL", "both forms hold at 1,024"),
    (r"draw_poisson\._small", r"range\(high \+ 3", "one factorial more, which is not read"),
    (
        r"draw_poisson\._large",
        r"^stirling = 1 / \(12 \* at\)",
        "less than the stated error, 2^-19, from 600 on",
    ),
    (r"draw_poisson\._large", r"np\.log\(at \* mean\)", "a constant more, which the peak takes off"),
    (r"draw_poisson\._log_factorial", r"_BERNOULLI, 1\)\)\)$", "a whole zero or a decimal one"),
    (
        r"draw_skellam\.skellam|grid\.grid_noise|grid\.to_grid",
        r"^if not (2\.0|3\.0|0 <)|0 <= step",
        "refused one step later too, in other words",
    ),
    (r"envelope\.Envelope\.draw", r"^kept = ", "how many are proposed at once changes speed only"),
    (r"envelope\.Envelope\._some", r"astype\(np\.uint64\)$", "copying or not changes speed only"),
    (
        r"envelope\.Envelope\._keep$",
        r"below <= prob|\) < margin",
        "at equality decimals decide, and the margin has room",
    ),
    (r"envelope\.Envelope\._keep_exactly", r"prec = 81", "one digit more than enough"),
    (
        r"envelope\.Envelope\._keep_exactly",
        r"\) <= probability",
        "equal with a probability of 2^-192 at most",
    ),
    (r"envelope\.build", r"\) \+ 2$", "one integer more fits the same table, but for rounding at a limit"),
    (
        r"envelope\.build",
        r"exp\(-?3 \* slack|uint64\(2\)|astype\(None\) \+ np",
        "a margin that is wider costs speed; one unit is far below the other margins",
    ),
    (
        r"envelope\.build",
        r"total (\+ 4\.0 \*|- 4\.0 /|- 5\.0 \*)",
        "the factor beside it leaves 2^34, these are 2^13",
    ),
    (
        r"envelope\.build",
        r"/ \(1 - _SAFETY\)|\(1 \+ _SAFETY\)\)\.astype",
        "the other margin is twice as wide, and holds alone",
    ),
    (r"envelope\.build", r"minimum\(lowest, 2\.0", "the weight is above the block: below 1 already"),
    (r"envelope\._alias_table", r"AssertionError\(", "the words of an error; its type is tested"),
    (r"envelope\._alias_table", r"w (<=|>) full\]", "a column that is just full neither gives nor takes"),
    (
        r"sampling\.chance_of_fewer",
        r"least > 0 or True|least >= 0",
        "below zero the distribution has nothing",
    ),
    # layers, budgets
    ("", r"einsum\('I,I->'", "another name of the same axis"),
    (
        r"dp\.calibration\.scale_for",
        r"start: float=2|factor = [23]\.[02]$|== '(XXpldXX|PLD)'|accountant='rdp'\)$",
        "how a search closes in; where it ends is tested",
    ),
    (
        r"dp\.calibration\._(bracket|narrow|log)",
        r"factor\) < epsilon|scale >= start|side|>= low|>= at_high|width|value < 0|-51",
        "how a search closes in; where it ends is tested",
    ),
    (r"dp\.client\.Quantile", r"noise = 2", "any number above zero stands for what is chosen later"),
    (
        r"dp\.(client|distributed|local)\.\w+\.kind$",
        r"RunFacts\(|NoisePlan\(|discrete\(",
        "an event with nominal numbers: its kind alone counts",
    ),
    (r"dp\.client\.ClientDP\.plan", r"701\.0", "e^700 times any distance is more than all"),
    (
        r"dp\.client\.ClientDP\.plan",
        r"run\.rounds > delta",
        "a margin at a single pair of places, or at the very limit",
    ),
    (r"dp\.client\.ClientDP\.encode", r"\[vote\](, None)?\)", "whole numbers of 64 bits either way"),
    (
        r"dp\.client\.ClientDP\.decode",
        r"astype\(None\)|asarray\(aggregate\.vector(, None)?\)",
        "up to 2^53, exact in either type",
    ),
    (
        r"dp\.client\.ClientDP\._(noised|adapt)",
        r"counts - discrete|\) - noise|balance - int",
        "the noise is as likely as its opposite",
    ),
    (r"dp\.client\.ClientDP\._noised", r"astype\(None\)", "NumPy's own choice here is the same type"),
    (r"dp\.client\.ClientDP\._adapt", r"sigma, 2\)", "one more is drawn, which is not read"),
    (
        r"dp\.clipping\.l2_norm",
        r"initial=1\.0|ldexp\(2\.0",
        "any power of two near the largest value scales alike",
    ),
    (
        r"dp\.clipping\.clip",
        r"norm \* _margin\(values\.size\) < bound|/ \(1 \+ 2|\) / _margin|1 - 2\.0|3\.0 \*\* \(-50|\(-51\)",
        "one of three margins: the two others are wider than a rounding",
    ),
    (
        r"dp\.clipping\.clip_or_drop",
        r"asarray\(vector(, dtype=None)?\)",
        "callers pass that dtype already",
    ),
    (r"dp\.distributed\.\w+\.encode", r"modulus\) - half\)$", "1 is the default of the message"),
    (r"dp\.distributed\.\w+\.encode", r"noised - half", "half a modulus up or down is the same residue"),
    (r"dp\.distributed\.\w+\._client_level", r"norm >= bound|3\.0 \*\* |-46", "any margin above a rounding"),
    (
        r"dp\.distributed\.\w+\.(_rotated|decode)",
        r"vector\.astype\(None\)|exact\.astype\(None\)",
        "NumPy's own choice here is the same type",
    ),
    (
        r"dp\.distributed\.\w+\._row",
        r"CLIENT or True",
        "every row asks everybody: whose names are kept besides changes nothing",
    ),
    (
        r"dp\.distributed\.\w+\._row",
        r"range\((row \+ 1|1, row \+ 2)\)",
        "no row before the first one or behind this one is kept",
    ),
    (
        r"dp\.distributed_plan\.\w+\._calibrated",
        r"shares, 2\.0",
        "a draft's multiplier: the one that is found takes its place",
    ),
    (
        r"dp\.distributed_plan\.\w+\._(calibrated|skellam_plan)",
        r"is None or self\.noise|needed < multiplier",
        "asked once more, a plan that keeps its price is kept",
    ),
    (
        r"dp\.encoding\.(sensitivity|share_variance)",
        r"3\.0 \*\* |\(-(31|41)\)",
        "any margin above a rounding",
    ),
    (
        r"dp\.encoding\.(choose|_grid)",
        r">= modulus|>= CLOSENESS",
        "a margin at a single pair of places, or at the very limit",
    ),
    (r"dp\.encoding\._bisect", r"^low, high|range\(121", "how a search closes in; where it ends is tested"),
    (r"dp\.events\.Skellam", r"l2 >= ", "a margin at a single pair of places, or at the very limit"),
    (r"dp\.layering\.integer_sigma", r"\(-41\)|3\.0 \*\* ", "any margin above a rounding"),
    (
        r"dp\.ledger",
        r"execute\('(select|pragma|insert|update|(SELECT|SELECT \* FROM|PRAGMA|INSERT INTO|UPDATE) [A-Z])",
        "another spelling of the same name",
    ),
    (
        r"dp\.ledger\.Ledger\._refuse_overspending",
        r"\.add\(event\)",
        "whether there is a price does not follow how often",
    ),
    (r"dp\.ledger\.Ledger\._quickly_within", r"\) < self", "which of two right ways answers"),
    (
        r"dp\.ledger\.Ledger\._prices_with",
        r"str\(None\)",
        "rows of one statement were chosen above; its name is not read again",
    ),
    (r"dp\.ledger_store\.append", r"or 1\)", "a row that was written has a number"),
    (r"dp\.local\.LocalDP\.encode", r"dimension\)\)$", "1 is the default of the message"),
    (r"dp\.local\.LocalDP\.encode", r"values - discrete", "the noise is as likely as its opposite"),
    (r"dp\.(local|rotation)\.", r"astype\(None\)", "NumPy's own choice here is the same type"),
    (r"dp\.rotation\.signs", r"size \+ 8", "one byte more, which is not read"),
    (r"dp\.rotation\.rotate", r"/= signs", "a sign is its own inverse"),
    (
        r"dp\.rounding\.conditional_round",
        r"limit > 2\.0|\) < limit|>= \(bound",
        "a margin at a single pair of places, or at the very limit",
    ),
    (r"dp\.rounding\.rounded_l2_bound", r"\(-41\)", "any margin above a rounding"),
    (
        r"dp\.suggestion\.suggest",
        r"0 <= clip",
        "refused in the same sentence: no signal is below such a clip",
    ),
    (r"dp\.suggestion\.suggest", r"amplify or True else whole", "worked out anew each time: speed only"),
    (
        r"dp\.suggestion\._needed",
        r"low, high = \((1, 1|0, 2)\)|high <= most|high \* 3",
        "how a search closes in; where it ends is tested",
    ),
    (r"dp\.rounding\.conditional_round", r"3\.0 \*\* |-31", "any margin above a rounding"),
    (r"dp\.rounding\.", r"words\.astype\(None\)", "NumPy's own choice here is the same type"),
    (
        r"dp\.(distributed\.\w+\._batch|distributed_plan\.\w+\.survivors|ledger\.\w+\._prices_with|suggestion\.suggest)",
        r"amplify or True else self\.batches|max\(self\._colluders|'XXXX', |min\(2\.0, clients",
        "a term that nothing could reach; it is gone since",
    ),
    # private training in a client's loop
    (
        r"dp\.sample\.(guard\.(set_by_the_loop|stepped_raw|changed_outside)|hooks\.unseen|memory\.forgets|errors\.|"
        r"validation\._problem|validation\._option|layer\.SampleDP\._declared|layer\.SampleDP\.describe)",
        r"XX|return f?['\"].*[A-Z]{4}|^return f?['\"]|[A-Z]{4}.*[A-Z]{5}",
        "the words of an error; its type and cause are tested",
    ),
    (
        r"dp\.sample\.",
        r"(\.to\(|device=)None|^totals = .*dtype=torch\.int64\) for|set_offset\(",
        "on a machine without a GPU there is one place to be",
    ),
    (
        r"dp\.sample\.(expanded|hooks|engine)\.",
        r"start\(1\)|listen\(True, 1",
        "told anew before each batch",
    ),
    (r"dp\.sample\.draws\.draw_secretly", r">> 2\)$", "of a seed a processor's generator takes 32 bits"),
    (r"dp\.sample\.draws\.draw_secretly", r"astype\(None\)", "up to 2^53, exact in either type"),
    (r"dp\.sample\.draws\.draw_secretly", r"0, 1\.0\)", "not read where nothing is kept back"),
    (r"dp\.sample\.expanded\.Expanded\.listen", r"= ''", "no tensor either way"),
    (
        r"dp\.sample\.factors\.grid_sum",
        r"factors\.to\(None\)",
        "64 bits either way: what comes there is a float64 array, or a whole number, already",
    ),
    (
        r"dp\.sample\.factors\.grid_sum",
        r"reshape\(-2\)",
        "NumPy takes any negative length, or none, as the rest",
    ),
    (r"dp\.sample\.factors\.written_out", r"'NO,NI->NOI'", "another name of the same axis"),
    (
        r"dp\.sample\.gradients\._(Arrivals|Expected)\.empty|dp\.sample\.hooks\.RowHooks\.__init__",
        r"^self\.size = |^self\.names = ",
        "a term that nothing could reach; it is gone since",
    ),
    (r"dp\.sample\.gradients\.clipped_sum", r"=257", "how many at once changes memory only"),
    (r"dp\.sample\.hooks\.RowHooks\.__init__", r"watching = True", "while rows are made it is not asked"),
    (
        r"dp\.sample\.hooks\.RowHooks\._(rows|forward)",
        r"uses\[id\(None\)\]|uses\.update|not bag or ",
        "which of two right ways answers",
    ),
    (r"dp\.sample\.hooks\.agreed", r"apart < 3", "a margin at a single pair of places, or at the very limit"),
    (r"dp\.sample\.hooks\.reaches", r"seen\.add\(None\)", "what was seen is looked at once more: speed only"),
    (
        r"dp\.sample\.layout\.found",
        r"raise Ambiguous\(",
        "the words of an error; its type and cause are tested",
    ),
    (
        r"dp\.sample\.loader\._insist",
        r"type\(None\)\.__name__",
        "a name that stands in the words of an error only",
    ),
    (r"dp\.sample\.loader\._insist", r"'replacement', None", "what is not there is no replacement"),
    (
        r"dp\.sample\.loader\._CollateTensors",
        r"_Part\(None, 1",
        "what is empty has no size to read",
    ),
    (r"dp\.sample\.loader\._Parts", r"max\(2,", "one example is one part either way"),
    (
        r"dp\.sample\.loader\.PrivateLoader",
        r"type\(None\) is TensorDataset",
        "the general way gives what the quick one gives",
    ),
    (
        r"dp\.sample\.loader\.PrivateLoader",
        r"lru_cache\((None|1025)",
        "how many are kept changes memory only",
    ),
    (
        r"dp\.sample\.loader\.PrivateLoader\._fetch",
        r"\((False, True|True, False)\)",
        "the place in a batch is not read there",
    ),
    (
        r"dp\.sample\.(__getattr__|loader\._secret|loader\._Tagged\.__getitem__)",
        r"_HOMES|getattr\(None|property\(None|self\.dataset\[index\]",
        "runs while modules are imported, before any test, or is gone since",
    ),
    (r"dp\.sample\.memory\._package", r"__module__", "every class and function has a module"),
    (r"dp\.sample\.memory\._reached", r"^found = ", "nothing was found before"),
    (r"dp\.sample\.memory\._reached", r"if own or True", "an empty list of names more, in every walk"),
    (r"dp\.sample\.memory\.leaves", r"'XXagainXX'|'AGAIN'", "a name that is compared with itself"),
    (
        r"dp\.sample\.memory\.leaves",
        r"alive\.append\(None\)",
        "an id that is used again cannot be made to order",
    ),
    (
        r"dp\.sample\.memory\._copied",
        r"memo\[id\(None\)\] = each\.|in memo and False|id\(None\) in memo|seen\[id\(each\)\] = None",
        "the general way gives what the quick one gives",
    ),
    (
        r"dp\.sample\.memory\._held",
        r"training != root",
        "a mode that is compared with itself, the other way round",
    ),
    (
        r"dp\.sample\.(memory|guard)\.",
        r"leaves\((value, own|now\[name\])(, copies=True)?\)[ :]",
        "copying or not changes speed only",
    ),
    (
        r"dp\.sample\.memory\._bits",
        r"or True else tensor",
        "an empty tensor equals its like before; gone since",
    ),
    (r"dp\.sample\.own_sum", r"reshape\(-2\)", "NumPy takes any negative length, or none, as the rest"),
    (
        r"dp\.sample\.remade\.Calls\.without",
        r"_squares = None",
        "the general way gives what the quick one gives",
    ),
    (
        r"dp\.sample\.samplers\.split",
        r"^rest = ",
        "one row, or a row of one: the general way gives what the quick one gives",
    ),
    (
        r"dp\.sample\.optimizers\.PrivateOptimizer",
        r"expected_batch_size=2",
        "this one's own denominator takes its place",
    ),
    (
        r"dp\.sample\.optimizers\.PrivateOptimizer\._count_noise",
        r"else 1\.0",
        "asked under an adaptive clip alone",
    ),
    (
        r"dp\.sample\.(samplers\.(split|_bags)|sums\.rows)",
        r"rest (or True )?else|1 - rest|2 \+ rest|>= 1 \+ rest|^ends = |^count = ",
        "a term that nothing could reach; it is gone since",
    ),
    (r"dp\.sample\.samplers\.split", r">= 3:$", "nothing to flatten"),
    (r"dp\.sample\.samplers\._bags", r"bincount\(bag\)\[bag\]", "only bags that have words are looked up"),
    (r"dp\.sample\.sums\.", r"device\.type (!= 'cpu'|== '(XXcpuXX|CPU)')", "which of two right ways answers"),
    (
        r"dp\.sample\.(sums|samplers)\.",
        r"^return gradients\.double|^total |^total=|^scaled = scaled|^for at in range\(|^part, factor|"
        r"torch\.arange\((size|len\(index\))\)[.,]|dtype=d\.dtype\)$",
        "on a machine without a GPU there is one place to be",
    ),
    (r"dp\.sample\.sums\.clip_factors", r">= clip", "at equality both ways give 1"),
    (r"dp\.sample\.targets\.OwnLosses\.__init__", r", True\)$", "more is looked at: speed only"),
    (r"dp\.sample\.targets\.OwnLosses", r"'__name__'", "every function of torch has a name"),
    (
        r"dp\.sample\.targets\.",
        r"'(XXcudaXX|CUDA|XXmpsXX|MPS)'",
        "on a machine without a GPU there is one place to be",
    ),
    (r"dp\.sample\.targets\._total", r"get\('reduction'", "torch tells the reduction each time"),
    (
        r"dp\.sample\.validation\.",
        r"'(track_running_stats|scale_grad_by_freq|padding_mode)', (None|'ZEROS')\)",
        "what is not there is as little as False; a convolution has its padding",
    ),
    (r"dp\.sample\.validation\.validate", r"='(XXhooksXX|HOOKS)'", "any name but one"),
    (r"dp\.sample\.validation\._without_statistics", r"^setattr", "False is the default there"),
    (r"dp\.sample\.gradients\.prove", r"rate, 2, System", "a check draws by a script of its own"),
    (
        r"dp\.sample\.layer\.SampleDP\._require_plan",
        r"isclose\(stored\[name\], now\)",
        "that is the default of the language",
    ),
    (
        r"dp\.sample\.",
        r"torch\.zeros\(\w+\.numel\(\), dtype=torch\.int64\)",
        "on a machine without a GPU there is one place to be",
    ),
    (
        r"dp\.sample\.optimizers\.PrivateOptimizer\.noise_only",
        r"batch\(1, first",
        "how many are pending is not asked of noise alone",
    ),
    (
        r"dp\.sample\.optimizers\.PrivateOptimizer\._release",
        r"'step_hook'\)$",
        "an engine attaches one always",
    ),
    (
        r"dp\.sample\.optimizers\.PrivateOptimizer\.clip_and_accumulate",
        r"names(, None)?\)$",
        "more is compared than need be",
    ),
    (r"dp\.sample\.optimizers\.PrivateOptimizer\.zero_grad", r"", "forgotten either way"),
    (
        r"dp\.sample\.optimizers\.PrivateOptimizer\._after_noise",
        r"1\.0\), 2\)\[0\]",
        "one more is drawn, which is not read",
    ),
    (r"dp\.sample\.guard\.numbers", r"id\(None\)", "an id in the place of an object; it is the object since"),
    (
        r"dp\.sample\.targets\._insist",
        r"get\('(reduction|ignore_index)'",
        "torch tells the reduction, and what is ignored, each time",
    ),
    (r"dp\.sample\.targets\._insist", r"\(-1\)\[1\]", "where all are equal it is any of them"),
    (r"dp\.sample\.targets\._insist", r"^reason = ", "the words of an error; its type and cause are tested"),
    (r"dp\.sample\.memory\._copied", r"seen\[id\(None\)\]", "the general way gives what the quick one gives"),
    # what noise costs
    (r"curves\.skellam_curve", r"sample_rate == 2", "at rate 1 the amplified curve is that of all"),
    (r"dp\.accountants\.base\.", r"Counter\(None\)", "an empty counter either way"),
    (r"dp\.accountants\.base\.Accountant\.add", r"row=2\)", "one row stands for all of a plan: any does"),
    (
        r"dp\.accountants\.base\.Accountant\._whole",
        r"range\(max\(rows\) \+ 1\)|max\(rows\) \+ 2\)",
        "no row lies before the first one or behind the last one: a zero there moves all alike",
    ),
    (
        r"dp\.accountants\.base\.Accountant\.(epsilon|delta)",
        r"range\(101\)|left < 0|guess < upper",
        "where a search gives up or stands still: the bound holds at either step",
    ),
    (
        r"dp\.accountants\.base\.Accountant\.(epsilon|delta)",
        r"701\.0",
        "e^700 times any distance is more than all",
    ),
    (r"dp\.accountants\.base\.Accountant\._refusal", r"XX|USE", "the words of an error; its type is tested"),
    (
        r"dp\.accountants\.pld\.(_composed|interval)",
        r"_distribution\(None, event\.n",
        "Pure alone is told from the others there",
    ),
    (
        r"dp\.accountants\.pld\._composed",
        r"_distribution\(Pure, event\.epsilon, (None|2\.0|1\.0, None)",
        "a pure mechanism is priced without a rate and without a relation",
    ),
    (r"dp\.accountants\.pld\._composed", r"count == 1 and False", "composed once it is itself"),
    (r"dp\.accountants\.pld\.interval", r">= _DEAREST", "a limit of size: no price is exactly that"),
    (
        r"dp\.accountants\.pld\.interval",
        r"max\(rough, 2\.0",
        "below 30 the grid is the finest whatever the price",
    ),
    (
        r"dp\.accountants\.rdp\._through_dp_accounting",
        r"RdpAccountant\(None|dtype=None|asarray\(account\.rdp\)",
        "these orders, and 64 bits, are what dp-accounting takes by itself",
    ),
    (r"dp\.accountants\.reduction\.eta", r"e0 <= 1", "exactly one is infinite either way"),
    (r"dp\.accountants\.selected\.logarithmic", r"701\.0", "how far a search looks"),
)


LENGTHS = "the lengths were compared when the message was decoded, or are equal by construction"


def reason(place: str, before: str, after: str) -> str:
    """The first reason that fits, or nothing."""
    if after in (before.replace(", strict=True", ""), before.replace("strict=True", "strict=False")):
        return LENGTHS
    if after == before.replace(", strict=False", ""):
        return "not strict is the default of the language"
    if either_way(after) == either_way(before):
        return "a message takes as many bytes in either direction"
    if before.count(", 'big'") and after in without_big(before):
        return '"big" is the default of the language'
    for where, change, why in REASONS:
        if re.search(where, place) and re.search(change, after):
            return why
    return ""


def either_way(line: str) -> str:
    """The line without what tells uploads from downloads."""
    return re.sub(r"up=(True|False)", "up", line)


def without_big(line: str) -> list[str]:
    """The line without one of its byte orders."""
    word = ", 'big'"
    return [line[: m.start()] + line[m.end() :] for m in re.finditer(word, line)]
