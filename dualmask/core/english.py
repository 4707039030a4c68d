"""English words that writers confuse: the lists behind ``core.confusions``. Sets are lines; words of a line are confused."""

from __future__ import annotations


def _sets(lines: str) -> list[list[str]]:
    return [line.split() for line in lines.strip().splitlines()]


# Closed classes. A word may stand in several sets, next to those that are really written in its place.
ARTICLES = _sets("a an the")
PREPOSITIONS = _sets(
    """
    in on at
    in into within inside to
    on onto upon over
    to for of
    of from by
    to at towards toward
    with by of to for
    about of on for
    as like
    from since of
    under below beneath
    above over below
    between among
    through across along over via
    until till by before
    during in for while
    without with
    before after ago
    against with to
    out off of
    """
)
PRONOUNS = _sets(
    """
    i me my mine
    he him his she
    she her hers he
    they them their theirs it
    it its they
    we us our ours
    you your yours
    who whom whose which that
    which that what who
    himself itself themselves
    """
)
AUXILIARIES = _sets(
    """
    is are was were be
    be been being is
    has have had having
    has is
    do does did done
    can could may might
    will would shall should
    must should may can
    """
)
OTHER_CLASSES = _sets(
    """
    this that these those
    this these
    many much
    few little less fewer
    some any
    each every all both
    other others another
    and or but
    then than
    if whether when
    so as such
    when while where
    because since as
    although though despite
    what which how
    when where why
    either neither
    or nor
    too very so
    also too
    more most
    not no
    never ever
    here there
    yet still already
    """
)
CLASSES = [*ARTICLES, *PREPOSITIONS, *PRONOUNS, *AUXILIARIES, *OTHER_CLASSES]

# Words that writers leave out.
OMITTED = set(
    """
    a an the in on at of for to from by with as about into
    it its they them their we you your he him his this that these those which who
    is are was were be been being has have had do does did can could will would should not and
    """.split()
)

CONFUSABLES = _sets(
    """
    their there they're
    its it's
    your you're
    to too two
    than then
    affect effect
    affects effects
    affected effected
    loose lose
    loses looses
    accept except
    who's whose
    were where we're
    of off
    quite quiet
    weather whether
    passed past
    here hear
    by buy
    no know
    new knew
    now know
    right write
    our are
    son sun
    week weak
    way weigh
    wait weight
    whole hole
    principal principle
    complement compliment
    advice advise
    advices advises
    practice practise
    device devise
    license licence
    choose chose
    breath breathe
    cloth clothe
    later latter
    desert dessert
    council counsel
    lead led
    read red
    peace piece
    plain plane
    brake break
    cite site sight
    wear where
    which witch
    threw through
    though through
    thorough through
    through threw
    thought though
    though tough
    allowed aloud
    bare bear
    board bored
    die dye
    fair fare
    mail male
    meat meet
    pair pear
    role roll
    root route
    sale sail
    steal steel
    tail tale
    waist waste
    ensure insure assure
    emit omit
    adapt adopt
    access excess
    personal personnel
    precede proceed
    stationary stationery
    moral morale
    lay lie
    rise raise
    sit set
    beside besides
    everyday every
    altogether together
    discreet discrete
    explicit implicit
    explicitly implicitly
    form from
    trail trial
    filed field
    though although
    say tell
    learn teach
    borrow lend
    make do
    bring take
    look see
    high tall
    big large
    small little
    amount number
    between among
    especially specially
    sometime sometimes
    altered alternated
    respectfully respectively
    economic economical
    historic historical
    alternate alternative
    consist contain
    sensible sensitive
    """
)

VERBS_IRREGULAR = _sets(
    """
    be is are was were been being
    have has had having
    do does did done doing
    go goes went gone going
    make makes made making
    give gives gave given giving
    take takes took taken taking
    write writes wrote written writing
    get gets got gotten getting
    see sees saw seen seeing
    know knows knew known knowing
    begin begins began begun beginning
    become becomes became becoming
    break breaks broke broken breaking
    bring brings brought bringing
    build builds built building
    buy buys bought buying
    catch catches caught catching
    choose chooses chose chosen choosing
    come comes came coming
    cut cuts cutting
    deal deals dealt dealing
    draw draws drew drawn drawing
    drive drives drove driven driving
    eat eats ate eaten eating
    fall falls fell fallen falling
    feed feeds fed feeding
    feel feels felt feeling
    find finds found finding
    forget forgets forgot forgotten forgetting
    grow grows grew grown growing
    hear hears heard hearing
    hide hides hid hidden hiding
    hold holds held holding
    keep keeps kept keeping
    lead leads led leading
    learn learns learned learnt learning
    leave leaves left leaving
    let lets letting
    lie lies lay lain lying
    lose loses lost losing
    mean means meant meaning
    meet meets met meeting
    override overrides overrode overridden overriding
    overwrite overwrites overwrote overwritten overwriting
    pay pays paid paying
    put puts putting
    read reads reading
    rise rises rose risen rising
    run runs ran running
    say says said saying
    sell sells sold selling
    send sends sent sending
    set sets setting
    show shows showed shown showing
    shut shuts shutting
    sleep sleeps slept sleeping
    speak speaks spoke spoken speaking
    spend spends spent spending
    split splits splitting
    stand stands stood standing
    swim swims swam swum swimming
    teach teaches taught teaching
    tell tells told telling
    think thinks thought thinking
    throw throws threw thrown throwing
    understand understands understood understanding
    win wins won winning
    """
)

NOUNS_IRREGULAR = _sets(
    """
    man men
    woman women
    person people persons
    child children
    foot feet
    tooth teeth
    mouse mice
    life lives
    leaf leaves
    half halves
    self selves
    wife wives
    knife knives
    shelf shelves
    index indices indexes
    matrix matrices
    vertex vertices
    axis axes
    basis bases
    analysis analyses
    crisis crises
    hypothesis hypotheses
    criterion criteria
    phenomenon phenomena
    datum data
    medium media
    schema schemas schemata
    information informations
    advice advices
    research researches
    equipment equipments
    knowledge knowledges
    software softwares
    """
)

COMPARATIVES = _sets(
    """
    good well better best
    bad badly worse worst
    far further farther furthest
    large larger largest
    small smaller smallest
    high higher highest
    low lower lowest
    long longer longest
    short shorter shortest
    fast faster fastest
    slow slower slowest
    great greater greatest
    new newer newest
    old older oldest
    big bigger biggest
    easy easier easiest easily
    hard harder hardest hardly
    simple simpler simplest simply
    strong stronger strongest
    late later latest lately
    near nearer nearest nearly
    early earlier earliest
    """
)

# Regular ones, whose forms follow from rules.
VERBS = set(
    """
    accept access achieve act add address adjust agree aim allow announce answer appear append apply argue arrange
    arrive ask assign assume attach attack attend avoid base believe belong call cancel care carry cause change check
    claim clean clear climb close collect combine compare compile complete compute concern configure confirm connect
    consider contain continue control convert cook copy correct count cover create cross cry damage dance decide declare
    define delete deliver depend derive describe design destroy detect determine develop die differ disable disappear
    discover discuss divide document drop edit emit enable encode encounter encourage end enjoy ensure enter establish
    evaluate examine exclude execute exist expand expect explain export express extend extract face fail fetch fill
    filter finish fix flatten follow force format generate handle happen help hope identify ignore imagine implement
    implicate imply import improve include increase indicate infer influence inform inherit initialize insert inspect
    install intend interpret introduce invent invite invoke involve iterate join jump kill kick label laugh launch like
    limit link list listen live load lock log look love manage map mark match matter mention merge modify move multiply
    name need normalize note notice obtain occur offer open operate order organize own pack parse pass perform permit
    pick place plan plant play point post prefer prepare preserve press prevent print process produce propose protect
    prove provide publish pull push raise reach realize receive recognize record reduce refer reference register relate
    release rely remain remember remove repeat replace reply report represent request require reset resolve respect
    restore result return reverse save scale search seem select separate serve share shift sign skip smile sort specify
    start stay stop store strip study submit succeed suffer suggest supply support suppose surround switch talk test
    thank touch train transfer transform translate travel treat trigger try turn update use validate vary visit wait
    walk want warn wash watch wish wonder work worry wrap yield
    """.split()
)
ADJECTIVES = set(
    """
    able actual additional annual apparent appropriate automatic available bad basic bright certain cheap clean clear
    cold common complete complex conditional consecutive consistent constant correct corresponding current custom dark
    deep default different difficult direct distinct double dynamic dynamically early easy efficient empty entire equal
    equivalent exact existing explicit external famous fast final fine first fixed flat foreign formal free frequent
    full general good great hard heavy high hot huge human identical immediate implicit important independent individual
    initial inner internal invalid large last late left light likely linear local long loud low main major manual maximum
    mean minimum minor modern multiple narrow natural necessary negative new next nice normal numerical old only open
    optional original other outer own partial particular perfect poor positive possible previous primary private proper
    public pure quick quiet rapid rare raw real recent regular related relative rich right safe same second secondary
    separate serious short significant similar simple single slow small soft special specific standard static strict
    strong sudden sufficient suitable temporary third total true typical unique unknown usual useful valid various warm
    weak whole wide wrong young
    """.split()
)
DOUBLED = set(
    "admit commit control occur omit permit prefer refer submit transfer".split()
)  # the last letter, in -ed, -ing
UNINFLECTED = set(
    """
    about above again all almost alone along already also although always another anything around away back because
    best better both dict down each either else enough even ever every everything far few first five four half hence
    here how however instead int into itself just least less many more most much must never none nor not nothing now
    off often once one only others otherwise perhaps please quite rather seven several since six some something soon
    still such ten than that then there therefore thus three today together tomorrow too toward two under unless until
    upon very via well what whatever when whenever where whereas wherever whether which while who whole whose why within
    without yes yesterday yet
    """.split()
)
