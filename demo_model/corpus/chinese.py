"""The little Chinese that the model speaks: greetings, common questions, sums, days and tiny stories."""

from __future__ import annotations

from random import Random

from demo_model.corpus.arithmetic import pair
from demo_model.corpus.base import Check, Split, Turn

ZH_UNKNOWN = "对不起，我只是一个很小的演示模型，不知道这个问题的答案。不过我可以讲故事、做加减法，也可以告诉你天空为什么是蓝色的。"
ZH_SKY = "天空是蓝色的，因为空气会散射阳光。蓝光比红光更容易被散射，所以我们抬头时，从四面八方看到的都是蓝光。"

# (ways to ask in Chinese, an English question with the same answer or "", answer)
ENTRIES: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("你好", "您好", "你好！", "嗨", "大家好", "哈喽", "你好啊", "你好呀"), "Hello", "你好！我是 fastllm 的演示模型。你可以让我讲故事、做加减法，或者问我天空为什么是蓝色的。"),
    (("早上好", "早安", "早上好！"), "Good morning", "早上好！今天想听一个故事吗？"),
    (("晚上好", "下午好", "晚上好！"), "Good evening", "你好！今天过得怎么样？"),
    (("晚安", "我去睡觉了", "晚安！"), "Good night", "晚安，祝你做个好梦！"),
    (("再见", "拜拜", "下次见"), "Goodbye", "再见！和你聊天很开心。"),
    (("谢谢", "谢谢你", "多谢", "非常感谢", "谢谢！"), "Thank you", "不客气！"),
    (("你好吗", "你好吗？", "你怎么样？", "最近怎么样？"), "How are you?", "我很好，谢谢！你呢？"),
    (("你是谁", "你是谁？", "介绍一下你自己", "请介绍一下自己。", "你是什么？", "你是机器人吗？", "你是人工智能吗？", "你是什么模型？"), "Who are you?",
     "我是 fastllm 的演示模型，一个很小的语言模型，参数不到四百万。我会讲故事、做加减法，还会聊几句天。"),
    (("你叫什么名字", "你叫什么名字？", "你的名字是什么？", "怎么称呼你？"), "What is your name?", "我是 fastllm 的演示模型，你可以叫我小快。"),
    (("你会什么", "你能做什么？", "你会做什么？", "你可以帮我什么？", "帮助", "你有什么用？"), "What can you do?",
     "我会讲小故事、做一百以内的加减法、回答一些常见的问题，也会用英语聊天、排序和写 JSON。"),
    (("天空为什么是蓝色的", "天空为什么是蓝色的？", "为什么天空是蓝色的？", "为什么天是蓝的？", "天为什么是蓝的？", "天空为什么是蓝的？"), "Why is the sky blue?", ZH_SKY),
    (("为什么会下雨？", "为什么下雨", "雨是怎么来的？", "雨从哪里来？"), "Why does it rain?", "太阳把水晒热，水变成水汽升到天上，遇冷变成小水滴，聚成了云。水滴太重时，就落下来成了雨。"),
    (("彩虹是怎么形成的？", "为什么有彩虹？", "彩虹是什么？", "彩虹怎么来的"), "How does a rainbow form?", "阳光照进雨滴，被分成了红、橙、黄、绿、蓝、靛、紫七种颜色，这就是彩虹。"),
    (("草为什么是绿色的？", "为什么草是绿的？", "叶子为什么是绿色的？"), "Why is the grass green?", "因为草里有叶绿素。它吸收红光和蓝光，把绿光留给了我们的眼睛。"),
    (("海水为什么是咸的？", "为什么海水是咸的？", "大海为什么是咸的"), "Why is the sea salty?", "雨水把岩石里的盐带进河里，河水又带进大海。水会蒸发，盐却留了下来，所以海水是咸的。"),
    (("什么是语言模型？", "语言模型是什么？", "大模型是什么？", "什么是大语言模型"), "What is a language model?",
    "语言模型会读文字，然后一个词一个词地猜下面是什么。我就是一个很小的语言模型。"),
    (("什么是人工智能？", "人工智能是什么？", "什么是 AI？"), "What is artificial intelligence?", "人工智能就是让机器去看、去说、去想的程序。我是其中很小的一个。"),
    (("fastllm 是什么？", "什么是 fastllm？", "fastllm是什么"), "What is fastllm?", "fastllm 是一个很快的语言模型引擎，现在运行我的就是它。"),
    (("中国的首都是哪里？", "中国的首都是什么？", "中国首都"), "What is the capital of China?", "中国的首都是北京。"),
    (("法国的首都是哪里？", "法国首都是什么？"), "What is the capital of France?", "法国的首都是巴黎。"),
    (("日本的首都是哪里？", "日本首都是什么？"), "What is the capital of Japan?", "日本的首都是东京。"),
    (("太阳系有几颗行星？", "有多少颗行星？"), "How many planets are there?", "太阳系有八颗行星：水星、金星、地球、火星、木星、土星、天王星和海王星。"),
    (("一年有几个月？", "一年有多少个月？"), "How many months are in a year?", "一年有十二个月。"),
    (("一周有几天？", "一个星期有几天？"), "How many days are in a week?", "一周有七天。"),
    (("一年有多少天？", "一年有几天？"), "How many days are in a year?", "一年有三百六十五天，闰年有三百六十六天。"),
    (("讲个笑话", "给我讲个笑话。", "说个笑话吧", "你会讲笑话吗？", "来个笑话"), "Tell me a joke.", "为什么数字六很害怕？因为七吃了九！"),
    (("你几岁了？", "你多大了？", "你多少岁"), "How old are you?", "我只训练了几分钟，所以还很小。"),
    (("我爱你", "我喜欢你", "你真棒", "你真聪明", "很好", "太好了"), "You are great", "谢谢你，我很高兴！"),
    (("你会说中文吗？", "你会中文吗", "你会说英语吗？"), "Do you speak Chinese?", "我会说英语和一点点中文。"),
    (("背一首诗", "念一首诗。", "给我一首诗", "床前明月光"), "", "床前明月光，疑是地上霜。举头望明月，低头思故乡。"),
    (("从一数到十", "数到十"), "", "一、二、三、四、五、六、七、八、九、十。"),
)  # fmt: skip
_DAYS = "一二三四五六日"
_HEROES = ("小狐狸", "小兔子", "小熊", "小猫", "小狗", "小鸟", "小老鼠", "小猴子")
_PLACES = ("森林里", "海边", "山上", "河边", "花园里")
_COLOURS = ("红", "蓝", "绿", "黄", "白")
_THINGS = ("气球", "风筝", "帽子", "雨伞", "小船")
_NO_QUESTIONS = (
    "今天天气怎么样？", "现在几点了？", "今天几号？", "谁是美国总统？", "怎么做红烧肉？", "帮我写一段代码", "帮我写一篇作文", "股票会涨吗？",
    "世界杯谁赢了？", "怎么学好英语？", "推荐一本书", "推荐一部电影", "北京有什么好吃的？", "什么是量子力学？", "解释一下相对论", "火车票多少钱？",
    "怎么修电脑？", "翻译一下这句话", "中国有多少人？", "长城有多长？", "明天会下雪吗？", "你觉得我应该买什么手机？", "怎么减肥？", "什么是区块链？",
)  # fmt: skip


def turn(rng: Random, split: Split) -> Turn:
    """One turn in Chinese."""
    roll = rng.random()
    if roll < 0.62:
        ways, _, answer = rng.choice(ENTRIES)
        user = rng.choice(ways)
        if rng.random() < 0.3:
            user = user.rstrip("？！。")
    elif roll < 0.78:
        sign, a, b = pair(rng, split, negative=False)
        result = a + b if sign == "+" else a - b
        word = "加" if sign == "+" else "减"
        user = rng.choice(
            (
                f"{a}{word}{b}等于多少？",
                f"{a}{sign}{b}等于几？",
                f"{a} {sign} {b} 等于多少",
                f"{a}{word}{b}是多少？",
                f"请计算 {a}{sign}{b}",
            )
        )
        answer = f"{a} {sign} {b} = {result}"
        return Turn("sums", f"{a}{sign}{b}", user, answer, Check(equals=(answer,)), chinese=True)
    elif roll < 0.86:
        i = rng.randrange(7)
        offset, word = rng.choice(((1, "明天"), (-1, "昨天")))
        day = rng.choice(("星期", "周"))
        user = rng.choice((f"今天是{day}{_DAYS[i]}，{word}是{day}几？", f"如果今天{day}{_DAYS[i]}，{word}{day}几"))
        answer = f"{word}是{day}{_DAYS[(i + offset) % 7]}。"
    elif roll < 0.93:
        hero, place, colour, thing = (rng.choice(x) for x in (_HEROES, _PLACES, _COLOURS, _THINGS))
        user = rng.choice(
            ("讲个故事", "给我讲一个故事。", "我想听故事", f"讲一个{hero}的故事", f"给我讲一个关于{hero}的故事。")
        )
        answer = (
            f"从前，{place}住着一只{hero}。它有一个{colour}色的{thing}，每天都带在身边。有一天，风把{thing}吹走了，{hero}很伤心。"
            f"朋友们都来帮忙，终于找到了{thing}。{hero}笑着说：“谢谢大家！”"
        )
        return Turn("chinese", answer, user, answer, Check(contains=("从前",)), chinese=True)
    else:
        user, answer = rng.choice(_NO_QUESTIONS), ZH_UNKNOWN
    return Turn("chinese", user, user, answer, Check(equals=(answer,)), chinese=True)


def english_asked_pairs() -> tuple[tuple[str, str], ...]:
    """English questions with their Chinese answers, for the wish to be answered in Chinese."""
    return tuple((english, answer) for _, english, answer in ENTRIES if english)
