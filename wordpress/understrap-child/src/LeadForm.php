<?php

declare(strict_types=1);

namespace PMP\Theme;

/**
 * The form for the free guide with an e-mail address. It is reported to PMP Analytics on the server, so that a lead counts without
 * JavaScript, too, and the tracker ignores the form (`data-pmp-ignore`).
 *
 * It has no nonce: the page is cached and the same for everybody, and a forged submission gains nothing.
 */
final class LeadForm
{
    private const EMAIL = 'lead_email';

    private const NAME = 'lead_form';

    /** An invisible field that only bots fill in. */
    private const TRAP = 'lead_website';

    private const SENT = 'guide';

    public function register(): void
    {
        add_action('template_redirect', [$this, 'receive']);
    }

    /**
     * Takes a sent form and leads to the guide, so that a reload sends nothing again.
     */
    public function receive(): void
    {
        $email = $this->posted(self::EMAIL);
        if ($email === null) {
            return;
        }
        $address = sanitize_email($email);
        $is_lead = is_email($address) !== false && $this->posted(self::TRAP) === '';
        if ($is_lead) {
            /** Documented in PMP Analytics' README. */
            do_action('pmp_lead_captured', $address, sanitize_key($this->posted(self::NAME) ?? ''));
        }
        wp_safe_redirect(add_query_arg(self::SENT, $is_lead ? 'sent' : 'invalid', (string) get_permalink()), 303);
        exit;
    }

    /**
     * @param string $name Name of the form in the mesh.
     */
    public static function print(string $name): void
    {
        $answer = sanitize_key(wp_unslash($_GET[self::SENT] ?? ''));
        get_template_part('parts/lead-form', null, [
            'name' => $name,
            'email_field' => self::EMAIL,
            'name_field' => self::NAME,
            'trap_field' => self::TRAP,
            'is_sent' => $answer === 'sent',
            'is_invalid' => $answer === 'invalid',
        ]);
    }

    /**
     * @return string|null Null if the field was not sent, or is not a string.
     */
    private function posted(string $field): ?string
    {
        $value = wp_unslash($_POST[$field] ?? null);
        return is_string($value) ? $value : null;
    }
}
