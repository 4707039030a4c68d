"""English words that writers confuse, and kinds of words: the lists behind ``core.confusions``."""

from __future__ import annotations


def _sets(text: str) -> list[list[str]]:
    return [words.split() for words in text.split("|")]


def _words(text: str) -> set[str]:
    return set(text.split())


# Closed classes. A word may stand in several sets, next to those that are really written in its place; words that meet
# in more sets, or in a set that occurs twice, are confused more often.
ARTICLES = _sets(
    """
    a the | a the | a the | a an | an the
    """
)
PREPOSITIONS = _sets(
    """
    in on at | in on | in into | in within | into to | on onto | on upon | to for | to at | to towards | for of |
    of from | from by | with by | about of | about on | as like | from since | under below | above over |
    between among | through across | through over | across along | until by | till until | before until | during in |
    during while | without with | before after | against with | over on | around about
    """
)
PRONOUNS = _sets(
    """
    i me | i my mine | he him | him his | he she | her hers she | they them | them their theirs | it its | it they |
    we us | our ours us | you your yours | who whom | who which | whose who | which that | which what | himself itself |
    itself themselves
    """
)
AUXILIARIES = _sets(
    """
    is are | is are | is was | is be | was were | was were | are were | are be | was is been | be been being |
    has have | has have | has had is | have had having | do does | do does | did do | does is | did does | done did |
    can could | may might | may can | will would | shall should | should would | must should | might could
    """
)
OTHER_CLASSES = _sets(
    """
    this these | that those | this that | these those | many much | few little | less fewer | some any | each every |
    all every | all both | other others another | and or | and but | then than | if whether | if when | so as |
    so such | when while | when where | because since | although despite | what which | what how | why how |
    where when | either neither | or nor | too very | too also | more most | not no | never ever | here there |
    yet still | still already
    """
)
CLASSES = [*ARTICLES, *PREPOSITIONS, *PRONOUNS, *AUXILIARIES, *OTHER_CLASSES]
OMITTED = _words(  # by writers
    """
    a about an and are as at be been being by can could did do does for from had has have he him his in into is it
    its not of on should that the their them these they this those to was we were which who will with would you
    your
    """
)

# Open classes.
CONFUSABLES = _sets(
    """
    their there they're | its it's | your you're | than then | affect effect | affects effects | affected effected |
    loose lose | loses looses | accept except | who's whose | were where we're | quite quiet | weather whether |
    passed past | here hear | now know | right write | principal principle | complement compliment | advice advise |
    advices advises | practice practise | device devise | license licence | choose chose | breath breathe |
    cloth clothe | later latter | desert dessert | council counsel | lead led | read red | though through |
    thorough through | thought though | though tough | role roll | root route | ensure insure assure | emit omit |
    adapt adopt | access excess | personal personnel | precede proceed | stationary stationery | moral morale |
    lay lie | rise raise | sit set | beside besides | everyday every | altogether together | discreet discrete |
    explicit implicit | explicitly implicitly | form from | trail trial | filed field | though although | say tell |
    learn teach | borrow lend | make do | bring take | look see | high tall | big large | small little | amount number |
    between among | especially specially | sometime sometimes | altered alternated | respectfully respectively |
    economic economical | historic historical | alternate alternative | consist contain | sensible sensitive
    """
)
HOMOPHONES = _sets(  # seldom confused
    """
    to too | of off | two to | by buy | no know | new knew | our are | week weak | way weigh | wait weight |
    whole hole | peace piece | plain plane | brake break | cite site sight | wear where | which witch | threw through |
    allowed aloud | bare bear | board bored | die dye | fair fare | meat meet | pair pear | sale sail | steal steel |
    tail tale | waist waste | four for | hour our | see sea | son sun | mail male | some sum | one won
    """
)
VERBS_IRREGULAR = _sets(
    """
    be is are was were been being | have has had having | do does did done doing | go goes went gone going |
    make makes made making | give gives gave given giving | take takes took taken taking |
    write writes wrote written writing | get gets got gotten getting | see sees saw seen seeing |
    know knows knew known knowing | begin begins began begun beginning | become becomes became becoming |
    break breaks broke broken breaking | bring brings brought bringing | build builds built building |
    buy buys bought buying | catch catches caught catching | choose chooses chose chosen choosing |
    come comes came coming | cut cuts cutting | deal deals dealt dealing | draw draws drew drawn drawing |
    drive drives drove driven driving | eat eats ate eaten eating | fall falls fell fallen falling |
    feed feeds fed feeding | feel feels felt feeling | find finds found finding |
    forget forgets forgot forgotten forgetting | grow grows grew grown growing | hear hears heard hearing |
    hide hides hid hidden hiding | hold holds held holding | keep keeps kept keeping | lead leads led leading |
    learn learns learned learnt learning | leave leaves left leaving | let lets letting | lie lies lay lain lying |
    lose loses lost losing | mean means meant meaning | meet meets met meeting |
    override overrides overrode overridden overriding | overwrite overwrites overwrote overwritten overwriting |
    pay pays paid paying | put puts putting | read reads reading | rise rises rose risen rising | run runs ran running |
    say says said saying | sell sells sold selling | send sends sent sending | set sets setting |
    show shows showed shown showing | shut shuts shutting | sleep sleeps slept sleeping |
    speak speaks spoke spoken speaking | spend spends spent spending | split splits splitting |
    stand stands stood standing | swim swims swam swum swimming | teach teaches taught teaching |
    tell tells told telling | think thinks thought thinking | throw throws threw thrown throwing |
    understand understands understood understanding | win wins won winning
    """
)
NOUNS_IRREGULAR = _sets(
    """
    man men | woman women | person people persons | child children | foot feet | tooth teeth | mouse mice | life lives |
    leaf leaves | half halves | self selves | wife wives | knife knives | shelf shelves | index indices indexes |
    matrix matrices | vertex vertices | axis axes | basis bases | analysis analyses | crisis crises |
    hypothesis hypotheses | criterion criteria | phenomenon phenomena | datum data | medium media |
    schema schemas schemata | information informations | advice advices | research researches | equipment equipments |
    knowledge knowledges | software softwares
    """
)
COMPARATIVES = _sets(
    """
    good well better best | bad badly worse worst | far further farther furthest | large larger largest |
    small smaller smallest | high higher highest | low lower lowest | long longer longest | short shorter shortest |
    fast faster fastest | slow slower slowest | great greater greatest | new newer newest | old older oldest |
    big bigger biggest | easy easier easiest easily | hard harder hardest hardly | simple simpler simplest simply |
    strong stronger strongest | late later latest lately | near nearer nearest nearly | early earlier earliest
    """
)

# Words whose forms follow from rules.
VERBS = _words(
    """
    accept access achieve act add address adjust agree aim allow announce answer appear append apply argue arrange
    arrive ask assign assume attach attack attend avoid base believe belong call cancel care carry cause change
    check claim clean clear climb close collect combine compare compile complete compute concern configure confirm
    connect consider contain continue control convert cook copy correct count cover create cross cry damage dance
    decide declare define delete deliver depend derive describe design destroy detect determine develop die differ
    disable disappear discover discuss divide document drop edit emit enable encode encounter encourage end enjoy
    ensure enter establish evaluate examine exclude execute exist expand expect explain export express extend
    extract face fail fetch fill filter finish fix flatten follow force format generate handle happen help hope
    identify ignore imagine implement implicate imply import improve include increase indicate infer influence
    inform inherit initialize insert inspect install intend interpret introduce invent invite invoke involve
    iterate join jump kick kill label laugh launch like limit link list listen live load lock log look love manage
    map mark match matter mention merge modify move multiply name need normalize note notice obtain occur offer
    open operate order organize own pack parse pass perform permit pick place plan plant play point post prefer
    prepare preserve press prevent print process produce propose protect prove provide publish pull push raise
    reach realize receive recognize record reduce refer reference register relate release rely remain remember
    remove repeat replace reply report represent request require reset resolve respect restore result return
    reverse save scale search seem select separate serve share shift sign skip smile sort specify start stay stop
    store strip study submit succeed suffer suggest supply support suppose surround switch talk test thank touch
    train transfer transform translate travel treat trigger try turn update use validate vary visit wait walk want
    warn wash watch wish wonder work worry wrap yield
    """
)
NOUNS = _words(  # of which the ending or the vocabulary may say otherwise
    """
    access address analysis animal archive bias building bus cable channel class compass critic drawing encoding
    ending example festival goal hospital interval journal loss manual mapping material meal meaning meeting
    metric morning music native need objective paint painting picnic process proposal rehearsal ring sample seed
    setting signal speed string table terminal test thing topic traffic trial tuple use variable warning wing
    """
)
ADJECTIVES = _words(  # that have an adverb in -ly
    """
    accidental actual additional annual apparent appropriate automatic bright certain cheap clear close common
    complete conditional consistent constant correct corresponding current deep different direct distinct dynamic
    easy efficient entire equal equivalent exact explicit external final formal free frequent full general global
    happy heavy huge identical immediate implicit independent individual initial internal large late light linear
    local loud low main manual mean minimal mutual narrow natural necessary negative new nice normal numerical
    optional original partial particular perfect physical poor positive possible previous primary private proper
    public pure quick quiet random rapid rare real recent recursive regular relative rich right safe secondary
    separate serious sharp short significant similar simple slow soft special specific static strict strong sudden
    sufficient temporary total typical unique usual valid warm weak wide wrong
    """
)
DOUBLED = _words(  # the last letter, before -ed and -ing
    """
    admit commit control format occur omit permit prefer refer submit transfer
    """
)
UNINFLECTED = _words(
    """
    able about above again all almost alone along already also although always another anything around available
    away back bad basic because best better big binary blue both clean cold complex consecutive cool custom dark
    dead default dict difficult double down dry each either else empty enough even ever every everything existing
    extra false famous far fast few fine first five fixed flat foreign four good great green half hard hence here
    hidden high hot how however human important inner instead int into invalid itself just last least left less
    long major many maximum minimum minor missing modern more most much multiple must never next none nor not
    nothing now off often old once one only open other others otherwise outer own parallel perhaps please quite
    rather red same second seven several since single six small some something soon standard still such suitable
    sure ten than that then there therefore third three thus tiny today together tomorrow too toward true two
    under unknown unless until upon useful various very via well what whatever when whenever where whereas
    wherever whether which while white who whole whose why within without yes yesterday yet young
    """
)
