<?php

/**
 * Contact Form 7, as much of it as a submission shows.
 */

declare(strict_types=1);

class WPCF7_ContactForm
{
    public function id(): int
    {
        return 28;
    }

    public function title(): string
    {
        return 'Ask us';
    }
}

class WPCF7_Submission
{
    /** @var array<string, mixed> */
    public static array $posted = [];

    public static function get_instance(): self
    {
        return new self();
    }

    /**
     * @return array<string, mixed>
     */
    public function get_posted_data(): array
    {
        return self::$posted;
    }
}
