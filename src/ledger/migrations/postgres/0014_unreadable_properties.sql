-- What a message that can't be read had beside its bytes, if it bears a version of rollcall's: with it the message can be
-- read again. And the replay that published it again.
ALTER TABLE unreadable ADD COLUMN properties TEXT;
ALTER TABLE unreadable ADD COLUMN replay TEXT;
