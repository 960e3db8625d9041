<?php

declare(strict_types=1);

namespace PMP\Analytics\Capture;

use PMP\Analytics\Clock;
use PMP\Analytics\Hook;
use PMP\Analytics\Payload\Clean;
use PMP\Analytics\Payload\EventPayload;
use PMP\Analytics\Payload\Uuid;
use PMP\Analytics\Payload\JourneyPayload;
use PMP\Analytics\Queue\Kind;
use PMP\Analytics\Queue\Message;
use PMP\Analytics\Registerable;
use PMP_Event_Queue;
use WPCF7_ContactForm;
use WPCF7_Submission;

/**
 * Forms with an e-mail address: Contact Form 7, Gravity Forms, WPForms, or the action
 * `pmp_lead_captured` (e-mail address, name of the form). Other fields are not recorded.
 */
final class Forms implements Registerable
{
    /** Accepted by Contact Form 7, whether or not its mail could be sent. */
    private const SUBMITTED = ['mail_sent', 'mail_failed'];

    public function __construct(private readonly PMP_Event_Queue $queue, private readonly Clock $clock)
    {
    }

    public function register(): void
    {
        Hook::action('wpcf7_submit', [$this, 'contact_form_7'], 20, 2);
        Hook::action('gform_after_submission', [$this, 'gravity_forms'], 20, 2);
        Hook::action('wpforms_process_complete', [$this, 'wpforms'], 20, 3);
        Hook::action('pmp_lead_captured', [$this, 'captured'], 20, 2);
    }

    /**
     * @param array<string, mixed> $result
     */
    public function contact_form_7(WPCF7_ContactForm $form, array $result): void
    {
        if (! in_array($result['status'] ?? '', self::SUBMITTED, true)) {
            return;
        }
        $posted = (array) WPCF7_Submission::get_instance()?->get_posted_data();
        $this->record("cf7-{$form->id()}", $form->title(), $posted);
    }

    /**
     * @param array<int|string, mixed> $entry Values by field id.
     * @param array<string, mixed>     $form
     */
    public function gravity_forms(array $entry, array $form): void
    {
        $values = [];
        foreach ((array) ($form['fields'] ?? []) as $field) {
            if (($field->type ?? '') === 'email') {
                $values[] = $entry[(string) $field->id] ?? '';
            }
        }
        $this->record('gravity-' . ($form['id'] ?? ''), $form['title'] ?? '', $values);
    }

    /**
     * @param array<int, array<string, mixed>> $fields
     * @param array<string, mixed>             $entry
     * @param array<string, mixed>             $form
     */
    public function wpforms(array $fields, array $entry, array $form): void
    {
        $values = array_column(array_filter($fields, static fn (array $field): bool => ($field['type'] ?? '') === 'email'), 'value');
        $this->record('wpforms-' . ($form['id'] ?? ''), $form['settings']['form_title'] ?? '', $values);
    }

    public function captured(string $email, string $form = 'lead'): void
    {
        $this->record($form, $form, [$email]);
    }

    /**
     * @param array<mixed> $values Values from the visitor; the first e-mail address is the lead's.
     */
    private function record(string $form, mixed $title, array $values): void
    {
        $emails = array_filter(array_map(Clean::email(...), $values));
        $email = reset($emails);
        if ($email === false) {
            return;
        }
        $now = $this->clock->now();
        $id = Uuid::make($now);
        $user_id = get_current_user_id();
        $facts = [
            'id' => $id,
            'timestamp' => $now,
            'user_id' => $user_id > 0 ? $user_id : '',
            'page_url' => (string) wp_get_raw_referer(),
            'email' => $email,
            'metadata' => ['form' => $form, 'form_title' => $title] + Visitor::current()->tags(),
            'source' => 'plugin',
        ] + Visitor::current()->facts();
        $this->queue->add(
            new Message(Kind::Event, $id, EventPayload::of('lead_capture', $facts)),
            new Message(Kind::Conversion, $id, JourneyPayload::conversion('lead', $facts)),
        );
    }
}
